"""The script for a GPU does what it can without one, and no part takes another one with it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import click
import pytest

from benchmarks.gpu import Part, do, main, patience, plan_parts, why_not
from benchmarks.record import read


@pytest.mark.slow
def test_what_needs_no_gpu_is_measured_on_a_processor(
    small_checkpoint: Path, traced_engine: Path, plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, data = tmp_path / "results", ["--data", str(plate / "plate")]
    names = ("ways", "tf32", "build-small", "onnxruntime-small")
    chosen = [word for name in names for word in ("--part", name)]
    ours = ["--checkpoint", str(small_checkpoint), "--graph", str(traced_engine)]
    arguments = [*ours, "--output", str(output), *data, "--device", "cpu"]
    assert main([*arguments, "--minutes", "20", "--quick", *chosen]) == 0
    record = read(output / "gpu.json")
    assert record.is_complete
    assert {entry["name"]: (entry["status"], entry["reason"]) for entry in record.details["parts"]} == {
        "ways": ("done", None),
        "tf32": ("left out", "needs a GPU"),
        "build-small": ("left out", "needs a GPU"),
        "onnxruntime-small": ("left out", "needs a GPU"),
    }
    assert "ways: authors' way total p50" in record.measures
    printed = capsys.readouterr().out
    assert "authors' way" in printed
    assert "tf32 left out: needs a GPU." in printed


@pytest.mark.heavy
def test_part_that_fails_is_written_down_with_its_error(tmp_path: Path) -> None:
    missing = tmp_path / "none.onnx"
    part = Part("bad", ("benchmarks.latency", "--engine", str(missing)), 60)
    entry = do(part, tmp_path, limit_s=60)
    assert entry["status"] == "failed"
    assert not entry["reason"].startswith("error: ")
    assert str(missing) in entry["reason"]
    assert entry["record"] is None
    assert (tmp_path / "bad.log").exists()


@pytest.mark.heavy
def test_part_whose_time_is_over_is_stopped(tmp_path: Path) -> None:
    part = Part("long", ("http.server", "0", "--bind", "127.0.0.1"), 0.5)
    entry = do(part, tmp_path, limit_s=0.5)
    assert entry["status"] == "stopped"
    assert "were over" in entry["reason"]


def test_part_is_left_out_without_time_a_gpu_or_what_it_builds_on() -> None:
    part = Part("b", ("http.server",), 60, after="a")
    assert why_not(part, [], device="cuda", left_s=600) == "a was not done"
    ready = [{"name": "a", "status": "done"}]
    assert why_not(part, ready, device="cuda", left_s=1) == "no time was left"
    assert why_not(part, ready, device="cpu", left_s=600) is None
    assert why_not(Part("c", (), 60, needs_gpu=True), [], device="cpu", left_s=600) == "needs a GPU"


def parts_of(checkpoint: str | None, *graphs: str, keeps_timings: bool = True) -> dict[str, Part]:
    listed = plan_parts(
        None if checkpoint is None else Path(checkpoint),
        [Path(name) for name in graphs],
        output=Path("out"),
        device="cuda",
        data=None,
        quick=False,
        keeps_timings=keeps_timings,
    )
    return {part.name: part for part in listed}


@pytest.mark.parametrize("graphs", [["a.onnx", "b.onnx"], []])
def test_plans_are_built_before_anything_is_measured(graphs: list[str]) -> None:
    parts = parts_of("a.safetensors", *graphs)
    names, stems = list(parts), ["a", "b"] if graphs else ["a.fp16"]
    first = [] if graphs else ["export"]
    first += [f"{what}-{stem}" for what in ("build", "plan") for stem in stems]
    assert names[: len(first)] == first
    assert names.index("ways") < names.index("ways-8")
    for stem in stems:
        assert parts[f"plan-{stem}"].after == f"build-{stem}"
        assert parts[f"build-{stem}"].after == (None if graphs else "export")


@pytest.mark.parametrize("graphs", [["a.onnx"], []])
def test_each_part_is_a_command_that_its_program_takes(graphs: list[str]) -> None:
    for part in parts_of("a.safetensors", *graphs).values():
        module, *words = part.command
        program = importlib.import_module("export.__main__" if module == "export" else module)
        command, context = program.command, click.Context(program.command)
        if isinstance(command, click.Group):
            _, command, words = command.resolve_command(context, words)
        assert command is not None
        command.make_context(part.name, list(words))


def test_without_a_checkpoint_plans_are_measured_and_no_torch_is_asked_for() -> None:
    parts = parts_of(None, "a.onnx", "b.onnx")
    assert list(parts) == ["build-a", "build-b", "plan-a", "plan-b", "onnxruntime-a", "onnxruntime-b"]
    words = {word for part in parts.values() for word in part.command}
    assert not words & {"--checkpoint", "--way", "--device"}


def test_builds_share_a_timing_cache_where_the_product_has_one() -> None:
    for part in (parts_of(None, "a.onnx")["build-a"], parts_of("a.safetensors", "b.onnx")["build-b"]):
        assert part.command[-2:] == ("--timing-cache", "out/timings")
    assert "--timing-cache" not in parts_of(None, "a.onnx", keeps_timings=False)["build-a"].command


def test_limits_grow_with_the_input_and_on_slow_devices() -> None:
    card = patience("cuda", pixels=1024 * 1024, shares_memory=False)
    assert card == patience("cuda", pixels=256 * 256, shares_memory=False) == 1
    assert patience("cuda", pixels=4 * 1024 * 1024, shares_memory=False) == 4
    assert patience("cuda", pixels=1024 * 1024, shares_memory=True) > card
    assert patience("cpu", pixels=1024 * 1024, shares_memory=False) > card


def test_part_is_left_out_without_its_package() -> None:
    part = Part("c", ("http.server",), 60, needs="no-such-package")
    assert why_not(part, [], device="cuda", left_s=600) == "no-such-package is not installed"
    assert why_not(Part("c", (), 60, needs="numpy"), [], device="cuda", left_s=600) is None


@pytest.mark.heavy
def test_command_needs_no_torch_without_a_checkpoint(traced_engine: Path, tmp_path: Path) -> None:
    """The parts themselves need a GPU; all of them are written down."""
    arguments = ["--graph", str(traced_engine), "--output", str(tmp_path), "--device", "cpu"]
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'timm', 'tqdm', 'onnxruntime', 'openvino'):\n"
        "    sys.modules[name] = None\n"
        "from benchmarks.gpu import main\n"
        f"sys.exit(main({arguments!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), "nothing could be measured"
    parts = read(tmp_path / "gpu.json").details["parts"]
    assert {part["reason"] for part in parts} == {"needs a GPU"}
    assert len(parts) == 3


def test_bad_input_is_one_line(small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common, known = ["--output", str(tmp_path / "out"), "--device", "cpu"], ["--checkpoint", str(small_checkpoint)]
    (tmp_path / "file").touch()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(small_checkpoint.read_bytes()[:100_000])
    (tmp_path / "cut.onnx").write_bytes(b"\x08\x0a\x12")
    for arguments, said in (
        (["--checkpoint", str(tmp_path / "none"), *common], "none is no file"),
        (["--checkpoint", str(cut), *common], "cut.safetensors is not a readable safetensors file"),
        ([*known, *common, "--graph", str(tmp_path / "cut.onnx")], "cut.onnx"),
        ([*known, *common, "--part", "nothing"], "expected some of export"),
        (common, "expected --checkpoint CHECKPOINT, --graph GRAPH.onnx or both"),
        ([*known, "--device", "cpu", "--output", str(tmp_path / "file" / "x")], "cannot write"),
        ([*known, *common, "--graph", str(tmp_path / "none.onnx")], "none.onnx"),
    ):
        assert main(arguments) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
    assert not (tmp_path / "out").exists()
