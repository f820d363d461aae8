"""An engine takes its place whole, and what killed exports left goes."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.external_data_helper
import pytest
from onnx import TensorProto, helper

from export.graph.graph import read_graph
from export.publish import publish, unverified_name
from stlm_edge.errors import EngineError


def test_what_killed_exports_left_is_gone_after_the_next(tmp_path: Path) -> None:
    output = tmp_path / "stlm.onnx"
    left = ["stlm.unblessed.onnx", "stlm.unblessed.onnx.json", ".stlm.onnx.json.abcd1234.json", "stlm.unverified.onnx"]
    others = ["other.unblessed.onnx", ".other.onnx.abcd1234.onnx", "stlm.unblessed.plan"]
    for name in (*left, *others):
        (tmp_path / name).touch()

    def write(path: Path) -> None:
        assert path == unverified_name(output)
        path.write_text("an engine")

    publish(output, write=write, judge=lambda _: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([output.name, *others])


@pytest.mark.parametrize("place", ["weights.bin", "../weights.bin", "/tmp/weights.bin"])
def test_graph_that_keeps_weights_in_another_file_is_refused(tmp_path: Path, place: str) -> None:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [4], b"\0" * 16, raw=True)
    onnx.external_data_helper.set_external_data(weights, location=place)
    weights.ClearField("raw_data")
    graph = helper.make_graph(
        [helper.make_node("Constant", [], ["y"], value=weights)],
        "g",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
    )
    (tmp_path / "a.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(EngineError, match="keeps weights in other files"):
        read_graph(tmp_path / "a.onnx")
