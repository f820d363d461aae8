"""A graph with FP16 is checked in FP16, and nobody else's row passes for that."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import export.gate.inspectors
from export.__main__ import main
from export.gate.inspectors import has_half, open_inspector
from export.gate.pictures import choose, find_samples, read
from export.gate.verify import verify, would_verify
from export.graph.graph import PrecisionRecord, read_graph
from runtime.backends import open_backend
from runtime.backends.base import Backend
from stlm_edge.sidecar import Sidecar

from ..conftest import Alter, alter, shift_bias
from .test_verify import as_plan


def through_half(factor: float) -> Alter:
    """Multiply by `factor` and divide by it in FP16, before the last sigmoid."""

    def change(model: onnx.ModelProto) -> None:
        graph = model.graph
        (index,) = [place for place, node in enumerate(graph.node) if node.op_type == "Sigmoid"]
        before = graph.node[index].input[0]
        graph.initializer.extend(
            numpy_helper.from_array(np.array(value, np.float16), name)
            for name, value in (("up", factor), ("down", 1 / factor))
        )
        made = [
            helper.make_node("Cast", [before], ["half"], name="graph|to_half", to=TensorProto.FLOAT16),
            helper.make_node("Mul", ["half", "up"], ["high"], name="graph|up"),
            helper.make_node("Mul", ["high", "down"], ["low"], name="graph|down"),
            helper.make_node("Cast", ["low"], ["whole"], name="graph|from_half", to=TensorProto.FLOAT),
        ]
        graph.node[index].input[0] = "whole"
        nodes = [*graph.node[:index], *made, *graph.node[index:]]
        del graph.node[:]
        graph.node.extend(nodes)

    return change


def test_rows_that_widen_fp16_say_so(engine, plate_data, capsys, small_checkpoint):
    alter(engine, through_half(2.0), precision="fp16")
    assert (
        main(["verify", str(engine), "--reference", str(small_checkpoint), "--data", str(plate_data), "--images", "5"])
        == 0
    )
    names = ["onnxruntime in float32", "openvino in float32", "rounded to float16"]
    assert [drift.backend for drift in Sidecar.read(engine).engine.gate.drifts] == names
    printed = capsys.readouterr().out
    for name in names[:2]:
        assert f"{name}: it computes this graph's FP16 in float32, so its row does not test FP16" in printed
    assert printed.count("does not test FP16") == 2


def test_overflow_that_processors_hide_is_refused(engine, plate_data, small_checkpoint):
    alter(engine, through_half(6e4), precision="fp16")
    gate = verify(engine, reference=small_checkpoint, data=plate_data, images=5).gate
    assert not gate.verified
    assert {line.split(":")[0] for line in gate.objections} == {"rounded to float16"}
    assert gate.drifts[0].max_map_error < 1e-3


class RunsHere:
    """Has a plan run as its graph, or as another one, on the processor."""

    def __init__(self, graph: Path) -> None:
        self.graph = graph

    def __call__(self, plan: Path) -> tuple[Backend, Sidecar]:
        sidecar = Sidecar.read(plan)
        return open_backend(self.graph, spec=sidecar.spec, backend="onnxruntime"), sidecar


def test_plan_that_runs_here_answers_alone_for_its_fp16(engine, plate_data, small_checkpoint, monkeypatch):
    """What processors make of its graph is left out: here an overflow that this plan does not have."""
    alter(engine, through_half(6e4), precision="fp16")
    plan = as_plan(engine)
    arguments = {"reference": small_checkpoint, "data": plate_data, "images": 3}
    monkeypatch.setattr(export.gate.inspectors, "open_engine", RunsHere(engine))
    gate = verify(plan, **arguments).gate
    assert (gate.verified, gate.executed) == (True, True)
    assert len(gate.drifts) == 1

    faulty = engine.with_name("faulty.onnx")
    shutil.copy(engine, faulty)
    shutil.copy(Sidecar.path_for(engine), Sidecar.path_for(faulty))
    alter(faulty, shift_bias(1.0), precision="fp16")
    monkeypatch.setattr(export.gate.inspectors, "open_engine", RunsHere(faulty))
    gate = verify(plan, **arguments).gate
    assert (gate.verified, gate.executed, len(gate.drifts)) == (False, True, 1)


def test_plan_in_float32_that_runs_here_has_its_graph_beside_it(engine, plate_data, small_checkpoint, monkeypatch):
    monkeypatch.setattr(export.gate.inspectors, "open_engine", RunsHere(engine))
    gate = verify(as_plan(engine), reference=small_checkpoint, data=plate_data, images=3).gate
    assert [drift.backend for drift in gate.drifts][1:] == ["onnxruntime", "openvino"]


def test_fp16_is_recognised(engine):
    assert not has_half(onnx.load(engine))
    alter(engine, through_half(1.0))
    assert has_half(onnx.load(engine))


def test_reference_has_no_fp16(engine, traced_engine, plate_data, capsys):
    alter(engine, through_half(1.0))
    assert main(["verify", str(traced_engine), "--reference", str(engine), "--data", str(plate_data)]) == 1
    assert "is not in float32 throughout" in capsys.readouterr().err


def test_graph_in_memory_is_judged_by_its_fp16(engine, traced_engine, plate_data):
    spec = Sidecar.read(engine).spec
    samples = choose(find_samples(plate_data, None), 5)
    with open_inspector(traced_engine, spec=spec, backend="onnxruntime", name="reference") as reference:

        def verified(path: Path) -> bool:
            graph = read_graph(path)
            in_half = graph.with_model(graph.model, PrecisionRecord("fp16"))
            return would_verify(in_half, reference=reference, pictures=read(samples))

        assert verified(traced_engine)
        alter(engine, through_half(6e4))
        assert not verified(engine)
