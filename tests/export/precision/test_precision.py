"""Precision written into a graph, and read from it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest

from export.graph.onnx_model import PRECISION_KEY, SPEC_KEY, metadata, set_metadata
from export.precision.apply import precision_of, with_precision
from export.precision.rounded import rounded
from stlm_edge.errors import ConfigError, DataError, EngineError


def test_fp16_says_what_was_kept_and_why(graph, good, pictures, run):
    model, record = with_precision(graph, "fp16", calibration_pictures=good)
    assert precision_of(model) == record
    assert metadata(model)[SPEC_KEY] == metadata(graph)[SPEC_KEY]
    assert record.calibration is not None
    assert record.calibration.images == 6
    assert record.by_class["MLP"] == "fp16+fp32"  # its layer norms
    assert record.by_class["score"] == "fp32"
    names = {node.name for node in graph.graph.node}
    for kept in record.kept:
        assert kept.reason
        assert set(kept.nodes) <= names
    assert np.abs(run(rounded(model), pictures[0])[0] - run(graph, pictures[0])[0]).max() < 1e-2


def test_graph_that_was_given_is_not_changed(graph, good):
    before = graph.SerializeToString(deterministic=True)
    with_precision(graph, "fp16", calibration_pictures=good)
    assert graph.SerializeToString(deterministic=True) == before


def test_fp32_is_the_graph_with_a_record(graph):
    model, record = with_precision(graph, "fp32")
    assert set(record.by_class.values()) == {"fp32"}
    assert list(model.graph.node) == list(graph.graph.node)


def test_int8_is_recorded_by_class(graph, good):
    model, record = with_precision(graph, "int8", calibration_pictures=good, count=2, seed=1, classes=["neck"])
    assert precision_of(model) == record
    assert "int8" in record.by_class["neck"]
    assert "int8" not in record.by_class["MLP"]
    assert (record.calibration.images, record.calibration.seed) == (2, 1)


def test_fp16_without_pictures_is_announced(graph, caplog):
    _, record = with_precision(graph, "fp16")
    assert record.calibration is None
    assert "RANGES NOT MEASURED" in caplog.text


def test_int8_without_pictures_is_refused(graph):
    with pytest.raises(ConfigError, match="give --calibration"):
        with_precision(graph, "int8")


def test_empty_folder_is_refused(graph, tmp_path):
    with pytest.raises(DataError):
        with_precision(graph, "int8", calibration_pictures=tmp_path)


def test_precision_is_not_written_twice(graph):
    half, _ = with_precision(graph, "fp16")
    with pytest.raises(ConfigError, match="is in fp16 already"):
        with_precision(half, "int8")


@pytest.mark.parametrize("text", ["{", '{"precision": "fp64"}', '{"precision": "fp16", "colour": 1}'])
def test_damaged_record_is_refused(graph, text):
    damaged = onnx.ModelProto()
    damaged.CopyFrom(graph)
    set_metadata(damaged, PRECISION_KEY, text)
    with pytest.raises(EngineError, match=r"stlm_edge\.precision|its precision is 'fp64'"):
        precision_of(damaged)


def test_reading_needs_neither_torch_nor_model_opt():
    code = "import sys, export.precision.apply; print({'torch', 'modelopt', 'onnxruntime'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
