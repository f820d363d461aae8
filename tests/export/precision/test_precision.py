"""Precision written into a graph, and read from it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import onnx
import pytest

from export.graph.graph import PRECISION_KEY, SPEC_KEY, Graph, PrecisionRecord, read_graph, set_metadata
from export.precision.apply import in_precision
from export.precision.rounded import rounded
from stlm_edge.errors import ConfigError, DataError, EngineError


def metadata(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def test_fp16_says_what_was_kept_and_why(graph, half, pictures, run):
    record = half.record
    assert (record.precision, half.spec, half.made_by) == ("fp16", graph.spec, graph.made_by)
    assert record.calibration is not None
    assert record.calibration.images == 6
    assert record.by_class["MLP"] == "fp16+fp32"  # its layer norms
    assert record.by_class["score"] == "fp32"
    names = {node.name for node in graph.model.graph.node}
    for kept in record.kept:
        assert kept.reason
        assert set(kept.nodes) <= names
    assert np.abs(run(rounded(half.model), pictures[0])[0] - run(graph.model, pictures[0])[0]).max() < 1e-2


def test_graph_that_was_given_is_not_changed(graph):
    before = graph.model.SerializeToString(deterministic=True)
    in_precision(graph, "fp16")
    assert graph.model.SerializeToString(deterministic=True) == before


def test_graph_that_has_its_precision_stays_as_it_is(graph, half):
    assert in_precision(graph, "fp32") is graph
    assert in_precision(half, "fp16") is half


def test_file_tells_all_that_is_known_of_a_graph(graph, half, tmp_path):
    for made, path in ((graph, tmp_path / "float.onnx"), (half, tmp_path / "half.onnx")):
        made.save(path)
        read = read_graph(path)
        assert (read.spec, read.record) == (made.spec, made.record)
        assert read.to_bytes() == made.to_bytes() == path.read_bytes()
    told = metadata(onnx.load(tmp_path / "float.onnx"))
    assert (told[SPEC_KEY], told["stlm_edge.precision_name"]) == (graph.spec.to_json(), "fp32")
    assert PRECISION_KEY not in told
    told = metadata(onnx.load(tmp_path / "half.onnx"))
    assert (told[SPEC_KEY], told["stlm_edge.precision_name"]) == (graph.spec.to_json(), "fp16")
    assert told[PRECISION_KEY] == json.dumps(dataclasses.asdict(half.record))


def test_int8_is_recorded_by_class(graph, good):
    record = in_precision(graph, "int8", good=good, count=2, seed=1, classes=["neck"]).record
    assert record.precision == "int8"
    assert "int8" in record.by_class["neck"]
    assert "int8" not in record.by_class["MLP"]
    assert (record.calibration.images, record.calibration.seed) == (2, 1)


def test_fp16_without_pictures_is_announced(graph, caplog):
    assert in_precision(graph, "fp16").record.calibration is None
    assert "RANGES NOT MEASURED" in caplog.text


def test_int8_without_pictures_is_refused(graph):
    with pytest.raises(ConfigError, match="give --calibration"):
        in_precision(graph, "int8")


def test_empty_folder_is_refused(graph, tmp_path):
    with pytest.raises(DataError):
        in_precision(graph, "int8", good=tmp_path)


def test_precision_is_not_written_twice(half):
    with pytest.raises(ConfigError, match="is in fp16 already"):
        in_precision(half, "int8")


@pytest.mark.parametrize("text", ["{", '{"precision": "fp64"}', '{"precision": "fp16", "colour": 1}'])
def test_damaged_record_is_refused(graph, tmp_path, text):
    damaged = onnx.ModelProto()
    damaged.CopyFrom(graph.model)
    set_metadata(damaged, PRECISION_KEY, text)
    onnx.save(damaged, tmp_path / "damaged.onnx")
    with pytest.raises(EngineError, match=r"damaged\.onnx: .*(stlm_edge\.precision|its precision is 'fp64')"):
        read_graph(tmp_path / "damaged.onnx")


def test_record_written_before_is_read(graph, tmp_path):
    """Its words as they stood in files of version 0.1."""
    text = """{"precision": "fp16", "by_class": {"MLP": "fp16+fp32"}, "kept": [{"layer_class": "score",
        "reason": "the answer itself", "nodes": ["graph|sigmoid"]}]}"""
    old = onnx.ModelProto()
    old.CopyFrom(graph.model)
    set_metadata(old, PRECISION_KEY, text)
    onnx.save(old, tmp_path / "old.onnx")
    read: Graph = read_graph(tmp_path / "old.onnx")
    assert isinstance(read.record, PrecisionRecord)
    assert (read.precision, read.record.kept[0].nodes, read.record.calibration) == ("fp16", ("graph|sigmoid",), None)


@pytest.mark.heavy
def test_reading_needs_neither_torch_nor_model_opt():
    code = "import sys, export.precision.apply; print({'torch', 'modelopt', 'onnxruntime'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
