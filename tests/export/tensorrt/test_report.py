"""The plan report, from kernels whose floors can be reckoned by hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import pytest

from export.__main__ import main
from export.tensorrt.kernels import Kernel, KernelTable, KernelTensor, kernels_path, read_kernels, write_kernels
from export.tensorrt.report import as_text, make_report
from stlm_edge.errors import ConfigError, EngineError
from stlm_edge.tensorrt import GPU_PEAKS, GpuPeaks, peaks_of

# 1 TFLOP a second in FP16, 2 in INT8, half of one in FP32; 1 GB a second.
SLOW = "slow=1:2:0.5:1"


def kernel(name: str, *, stage: str, flops: int = 0, values: int = 0, dtype: str = "fp16", **other: object) -> Kernel:
    """One that reads `values` and writes nothing."""
    fields = {"kind": "kgen", "constants": (), "outputs": (), "nodes": (), "stream": None, "is_attention": False}
    return Kernel(
        name=name,
        inputs=(KernelTensor("x", (values,), dtype),),
        stage=stage,
        flops=flops,
        dtype=dtype,
        **(fields | other),  # type: ignore[arg-type]
    )


@pytest.fixture
def table() -> KernelTable:
    kernels = (
        kernel("read", stage="input", values=3_000_000, dtype="uint8"),
        kernel("multiply", stage="stage 1", flops=5 * 10**9, values=1_000_000, stream="plain"),
        kernel("attend", stage="stage 1", flops=10**9, values=2_000_000, stream="denoising", is_attention=True),
        kernel("quantised", stage="decoder", flops=4 * 10**9, values=1, dtype="int8"),
        kernel("precise", stage="score", flops=10**9, values=1, dtype="fp32"),
    )
    return KernelTable(kernels, graph_flops=11 * 10**9, unplaced=())


@pytest.fixture
def plan(table, tmp_path) -> Path:
    path = tmp_path / "stlm.plan"
    path.write_bytes(b"a plan")
    write_kernels(path, table)
    return path


def test_floor_is_the_larger_of_arithmetic_and_memory(table):
    report = make_report(table, peaks_of([SLOW]), plan="p", launch_us=4)
    floors = {row.name: row.floor_ms["slow"] for row in report.stages}
    assert floors == pytest.approx({"input": 3, "stage 1": 5 + 4, "decoder": 2, "score": 2})
    assert report.total.floor_ms["slow"] == pytest.approx(16)
    assert report.launches_ms == pytest.approx(5 * 4e-3)
    assert [(dear.kernel, dear.bound_by) for dear in report.dearest] == [
        ("multiply", "compute"),
        ("attend", "memory"),
        ("read", "memory"),
        ("quantised", "compute"),
        ("precise", "compute"),
    ]


def test_sums_and_shares_of_types(table):
    report = make_report(table, peaks_of([SLOW]), plan="p")
    assert (report.total.kernels, report.total.fused_attentions) == (5, 1)
    assert report.total.moved_mb == pytest.approx(9, abs=1e-4)
    assert report.dtype_mb == pytest.approx({"fp16": 6, "uint8": 3, "fp32": 0, "int8": 0}, abs=1e-4)
    assert report.dtype_gflop == pytest.approx({"fp16": 6, "int8": 4, "fp32": 1})
    assert {row.name: row.gflop for row in report.streams} == {"plain": 5, "denoising": 1}


def test_kernels_that_could_not_be_read_are_counted_and_shown(table):
    unread = tuple(f"Name: kernel {index}, LayerType: new" for index in range(5))
    report = make_report(dataclasses.replace(table, unread=unread), peaks_of([SLOW]), plan="p")
    text = as_text(report)
    assert "5 of 10 kernels are missing above" in text
    assert [line in text for line in unread] == [True] * 3 + [False] * 2
    assert "and 2 more" in text
    assert "missing above" not in as_text(make_report(table, peaks_of([SLOW]), plan="p"))


def test_half_precision_on_geforce_accumulates_in_single():
    # A GA102's tensor cores do 142 TFLOP/s only where they accumulate in FP16.
    assert GPU_PEAKS["rtx3090"].peak_flops_s("fp16") == 71e12
    assert GPU_PEAKS["rtx3090"].peak_flops_s("int8") == 284e12


def test_gpus_by_name_and_of_ones_own():
    assert peaks_of([]) == tuple(GPU_PEAKS.values())
    assert peaks_of(["h100", SLOW]) == (GPU_PEAKS["h100"], GpuPeaks("slow", 1, 2, 0.5, 1))


@pytest.mark.parametrize(
    "text", ["rtx9090", "mine=1:2:3", "mine=1:2:3:4:5", "mine=1:2:x:4", "=1:2:3:4", "mine=1:2:0:4"]
)
def test_unknown_or_malformed_gpu_is_refused(text, plan, capsys):
    assert main(["report", str(plan), "--gpu", text]) == 1
    error = capsys.readouterr().err
    assert text in error
    assert "name=fp16_tflops:int8_tops:fp32_tflops:memory_gb_s" in error
    assert len(error.splitlines()) == 1


def test_gpu_given_twice_is_refused():
    with pytest.raises(ConfigError, match="each name once"):
        peaks_of(["h100", "h100"])


@pytest.mark.heavy  # matplotlib asks the system for its fonts
def test_command_prints_a_table_and_writes_json_and_picture(plan, tmp_path, capsys):
    out, picture = tmp_path / "report.json", tmp_path / "report.png"
    arguments = ["--gpu", SLOW, "--gpu", "agx-orin", "--launch-us", "4", "--json", str(out), "-o", str(picture)]
    assert main(["report", str(plan), *arguments]) == 0
    text = capsys.readouterr().out
    total = next(line for line in text.splitlines() if line.startswith("total"))
    assert total.split()[1:6] == ["5", "1", "9.0", "11.0", "16.000"]
    assert "0.020 ms for 5 launches" in text
    assert "computed, not measured" in text
    written = json.loads(out.read_text())
    assert written["total"]["floor_ms"]["slow"] == pytest.approx(16)
    assert "computed, not measured" in written["caveat"]
    height, width = cv2.imread(str(picture)).shape[:2]
    assert width > 1000 and height > 500


def test_picture_of_another_kind_is_refused_before_anything_is_written(plan, tmp_path, capsys):
    out = tmp_path / "report.json"
    assert main(["report", str(plan), "--json", str(out), "-o", str(tmp_path / "report.jpg")]) == 1
    assert "expected .png" in capsys.readouterr().err
    assert not out.exists()


def test_kernels_come_back_as_they_were_written(plan, table):
    assert read_kernels(plan) == table


def test_kernels_of_before_there_were_unread_ones_are_read(plan, table):
    path = kernels_path(plan)
    content = json.loads(path.read_text())
    del content["sha256"], content["table"]["unread"]
    path.write_text(json.dumps(content))
    assert read_kernels(plan) == table


def test_plan_without_kernels_is_refused(plan):
    kernels_path(plan).unlink()
    with pytest.raises(EngineError, match=r"no stlm\.plan\.kernels\.json beside it.*stlm export"):
        read_kernels(plan)


def test_missing_plan_is_refused(tmp_path):
    with pytest.raises(EngineError, match="is not a file, expected a plan"):
        read_kernels(tmp_path / "none.plan")


def test_graph_instead_of_its_plan_is_refused(tmp_path, capsys):
    graph = tmp_path / "stlm.onnx"
    graph.touch()
    assert main(["report", str(graph)]) == 1
    assert "expected .plan" in capsys.readouterr().err


def test_kernels_of_another_plan_are_refused(plan):
    plan.write_bytes(b"another plan")
    with pytest.raises(EngineError, match="lists the kernels of a plan with SHA-256"):
        read_kernels(plan)


@pytest.mark.parametrize(
    "damage, expected",
    [
        (lambda text: text[: len(text) // 2], "is not JSON"),
        (lambda text: "[]", "holds a list"),
        (lambda text: text.replace('"flops": 5000000000', '"flops": "many"'), "is damaged"),
        (lambda text: text.replace('"graph_flops"', '"graph_flips"'), "is damaged"),
        (lambda text: text.replace('"stage 1"', '"stage 9"'), "is damaged"),
        (lambda text: text.replace('"dtype": "fp32"', '"dtype": "fp31"'), "is damaged"),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 99'), "schema version 99"),
    ],
)
def test_damaged_kernels_are_refused(plan, damage, expected, capsys):
    path = kernels_path(plan)
    content = json.loads(path.read_text())
    del content["sha256"]  # as of a version before it was there
    path.write_text(damage(json.dumps(content)))
    assert main(["report", str(plan)]) == 1
    error = capsys.readouterr().err
    assert expected in error and "build the plan again" in error
    assert len(error.splitlines()) == 1


def test_edited_kernels_are_refused(plan):
    path = kernels_path(plan)
    path.write_text(path.read_text().replace('"flops": 5000000000', '"flops": 6000000000'))
    with pytest.raises(EngineError, match="another SHA-256 than it says"):
        read_kernels(plan)
