"""What a file says of itself to programs without this toolkit."""

from __future__ import annotations

import dataclasses

import onnx

from export.graph.graph import SPEC_KEY, Graph, read_graph
from stlm_edge.spec import Threshold

ODD = 'é </b>\n"\u202e'


def entries(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key.removeprefix("stlm_edge."): entry.value for entry in model.metadata_props}


def saved(graph: Graph, path, **changes) -> tuple[Graph, onnx.ModelProto]:
    dataclasses.replace(graph, spec=dataclasses.replace(graph.spec, **changes), content=None).save(path)
    return read_graph(path), onnx.load(path)


def test_both_thresholds_frames_and_odd_names_stand_there_and_go_again(graph, tmp_path):
    threshold = Threshold(value=0.1 + 0.2, method="manual", images=0, unclear=1e-5)
    read, model = saved(graph, tmp_path / "a.onnx", threshold=threshold, frame_size=(480, 640), category=ODD)
    told = entries(model)
    assert float(told["threshold"]) == threshold.value
    assert float(told["unclear_threshold"]) == threshold.unclear
    assert (told["input_size"], told["frame_size"]) == ("64x96", "480x640")
    assert told["category"] == 'é </b>\\x0a"\\u202e'
    assert "whole camera frames" in model.doc_string
    assert read.spec.category == ODD

    plain = dataclasses.replace(threshold, unclear=None)
    _, model = saved(read, tmp_path / "b.onnx", threshold=plain, frame_size=None, category="plate")
    assert not {"unclear_threshold", "frame_size"} & set(entries(model))
    assert "whole camera frames" not in model.doc_string


def test_file_from_before_these_entries_is_read(graph, tmp_path):
    old = onnx.ModelProto()
    old.CopyFrom(graph.model)
    kept = graph.spec.to_json()
    del old.metadata_props[:]
    old.ClearField("doc_string")
    old.producer_name = "pytorch"
    old.metadata_props.add(key=SPEC_KEY, value=kept)
    onnx.save(old, tmp_path / "old.onnx")
    assert read_graph(tmp_path / "old.onnx").spec == graph.spec
