"""`--simplify`: onnx-simplifier over the graph."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.__main__ import main
from export.graph.graph import Graph, read_graph
from export.graph.parts import node_flops, place
from stlm_edge.errors import EngineError

from ..conftest import BIAS

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def simplify() -> Callable[[Graph], Graph]:
    pytest.importorskip("onnxsim")
    from export.graph import simplify as module  # it cannot be imported where there is none

    return module.simplify


def stages_of(graph: Graph) -> set[str]:
    """Stages of the nodes that compute most."""
    return {place([name])[0] for name in node_flops(graph.model)}


def test_simplified_graph_keeps_its_answers_its_names_and_what_it_says_of_itself(
    simplify, graph, pictures, run, tmp_path
):
    simplified = simplify(graph)
    assert len(simplified.model.graph.node) < len(graph.model.graph.node)
    for picture in pictures:
        for wanted, found in zip(run(graph.model, picture), run(simplified.model, picture), strict=True):
            assert np.abs(wanted - found).max() < TOLERANCE
    names = [node.name for node in simplified.model.graph.node]
    assert len(set(names)) == len(names)
    assert all("|" in name for name in names)
    assert stages_of(simplified) == stages_of(graph)
    simplified.save(tmp_path / "a.onnx")
    assert read_graph(tmp_path / "a.onnx").spec == graph.spec
    assert not [entry for entry in read_graph(tmp_path / "a.onnx").model.metadata_props if "onnxsim" in entry.key]


def test_number_of_pictures_stays_open(simplify, batched):
    simplified = simplify(batched).model.graph
    assert simplified.input[0] == batched.model.graph.input[0]
    assert simplified.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_simplifier_that_moves_the_answers_is_refused(simplify, graph, monkeypatch):
    def biased(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
        (bias,) = [tensor for tensor in model.graph.initializer if tensor.name == BIAS]
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.1), BIAS))
        return model, True

    monkeypatch.setattr("onnxsim.simplify", biased)
    with pytest.raises(EngineError, match=r"moved the answers by .* leave --simplify out"):
        simplify(graph)


def test_simplifier_that_changes_the_outputs_is_refused(simplify, graph, monkeypatch):
    def shortened(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
        del model.graph.output[1:]
        return model, True

    monkeypatch.setattr("onnxsim.simplify", shortened)
    with pytest.raises(EngineError, match=r"'score'.* leave --simplify out"):
        simplify(graph)


def test_missing_simplifier_is_told_before_anything_is_traced(small_checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxsim", None)
    monkeypatch.delitem(sys.modules, "export.graph.simplify", raising=False)
    assert main(["onnx", str(small_checkpoint), "-o", str(tmp_path / "a.onnx"), "--simplify"]) == 1
    assert "stlm-edge[simplify]" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
