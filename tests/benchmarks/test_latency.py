"""Engines and ways of PyTorch take turns from the frame to the verdict, and what cannot be measured is one line."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.latency import entry, fill, main, notes
from benchmarks.record import Device, Recorder, read
from benchmarks.subjects import STAGES, Pictures
from stlm_edge.imaging import write_image
from stlm_edge.measure import Measured

from ..export.tiny import checkpoint
from ..runtime.conftest import picture, write_engine
from .engines import write_batch_engine, write_openvino_engine

SMALL = ["--frame-size", "96", "128", "--turns", "2", "--runs", "6"]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an ONNX engine, OpenVINO's form of it, and a checkpoint."""
    folder = tmp_path_factory.mktemp("engines")
    write_openvino_engine(folder / "plate.xml", onnx=write_engine(folder / "plate.onnx"))
    write_batch_engine(folder / "batch.onnx", max_batch=4)
    checkpoint(folder / "model.safetensors")
    return folder


@pytest.mark.heavy
def test_every_engine_gets_each_backend_that_runs_it(engines, tmp_path, capsys):
    path = tmp_path / "latency.json"
    arguments = ["--engine", str(engines / "plate.xml"), "--engine", str(engines / "plate.onnx")]
    arguments += ["--backend", "openvino", "--backend", "onnxruntime", *SMALL, "--json", str(path)]
    assert main(arguments) == 0
    told = capsys.readouterr()
    assert told.err.count("UNVERIFIED ENGINE") == 2  # once for each file
    assert "All took turns" in told.out
    assert "Infer is the network" in told.out
    assert (
        next(line for line in told.out.splitlines() if line.startswith("plate.onnx on openvino")).split()[3]
        == "openvino,"
    )
    assert "The paper has 20 ms on an RTX 3090" in told.out
    assert "so the two cannot be compared" in told.out
    record = read(path)
    assert record.is_complete
    details = record.details
    names = ["plate.xml on openvino", "plate.onnx on openvino", "plate.onnx on onnxruntime"]
    assert [found["name"] for found in details["subjects"]] == names
    assert set(record.measures) == {f"{name} total p50" for name in names} | {f"{name} speed-up" for name in names[1:]}
    first, second = (record.measures[f"{name} total p50"].values for name in names[:2])
    ratios = [theirs / own for theirs, own in zip(first, second, strict=True)]
    assert record.measures[f"{names[1]} speed-up"].values == pytest.approx(ratios)
    assert details["frame_size"] == [96, 128]
    assert details["conditions"]["after"]["load"] >= 0
    assert details["estimates"] == []  # nothing here is known of a GPU
    for found in details["subjects"]:
        assert found["runs"] == len(found["samples_ms"]) == 12
        assert len(record.measures[f"{found['name']} total p50"].values) == 2
        for stage in STAGES:
            levels = [found["stages"][stage][name] for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms")]
            assert levels == sorted(levels)
        assert found["stages"]["infer"]["p50_ms"] <= found["stages"]["total"]["p50_ms"]
        assert found["stages"]["total"]["max_ms"] == pytest.approx(max(found["samples_ms"]), abs=0.01)
        assert found["frames_per_s"] == pytest.approx(1e3 * 12 / sum(found["samples_ms"]), rel=0.05)
        assert found["running_mb"] > 10
    assert details["subjects"][0]["speed_up"] == {"median": 1, "low": 1, "high": 1}


@pytest.mark.heavy
def test_ways_of_pytorch_come_before_engines_on_the_same_pictures(engines, tmp_path, capsys):
    for index in range(3):
        write_image(tmp_path / "data" / f"{index}.png", picture(60 + index, size=(80, 80 + index)))
    arguments = [
        "--checkpoint",
        str(engines / "model.safetensors"),
        "--way",
        "batched",
        "--data",
        str(tmp_path / "data"),
    ]
    arguments += ["--engine", str(engines / "batch.onnx"), "--backend", "onnxruntime", "--batch", "4", "--runs", "2"]
    arguments += ["--turn-seconds", "600"]  # on a busy machine, too
    path = tmp_path / "latency.json"
    assert main([*arguments, "--turns", "1", "--json", str(path)]) == 0
    told = capsys.readouterr().out
    assert "3 pictures of data, 80 x 80 to 80 x 82, input several sizes, batch 4" in told
    assert "different networks (brightness at 64 x 128, stlm-tiny at 64 x 96)" in told
    details = read(path).details
    own, engine = details["subjects"]
    assert (own["name"], own["library"], engine["library"]) == ("PyTorch batched", "pytorch", "onnxruntime")
    assert own["runs"] == 8
    assert details["input_size"] is None
    assert details["frame_size"] is None


@pytest.mark.heavy
def test_turn_ends_after_its_seconds(engines, tmp_path):
    path = tmp_path / "latency.json"
    arguments = ["--engine", str(engines / "plate.onnx"), *SMALL, "--turn-seconds", "0.1", "--runs", "1000000"]
    assert main([*arguments, "--json", str(path)]) == 0
    assert 1 <= read(path).details["subjects"][0]["runs"] < 1_000_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "found nothing to measure"),
        ("--way eager", "no checkpoint for it"),
        ("--checkpoint model.safetensors", "no way to run it"),
        ("--checkpoint model.safetensors --way fast", "found the way 'fast'"),
        ("--checkpoint model.safetensors --way tf32", "add --device cuda"),
        ("--checkpoint none.safetensors --way eager", "none.safetensors is no file"),
        ("--checkpoint plate.onnx --way eager", "not a readable safetensors file"),
        ("--engine plate.onnx --device cuda", "which it is for"),
        ("--engine none.onnx", "none.onnx is not a file"),
        ("--engine model.safetensors", "has the suffix '.safetensors'"),
        ("--engine other.onnx", "has SHA-256"),
        ("--engine plate.xml --backend onnxruntime", "onnxruntime cannot run it"),
        ("--engine plate.xml --engine plate.onnx --backend openvino --backend tensorrt", "tensorrt cannot run it"),
        ("--engine plate.xml --backend onnxruntime-cuda", "onnxruntime-cuda cannot run"),
        ("--engine plate.onnx --batch 8", "takes 1 picture at once, found a batch of 8"),
        ("--engine plate.onnx --engine plate.onnx", "two subjects of the name"),
        ("--engine plate.onnx --data empty", "has no pictures"),
        ("--engine plate.onnx --data nowhere", "nowhere does not exist"),
        ("--engine plate.onnx --data broken", "not a picture"),
        ("--engine plate.onnx --data empty --frame-size 96 96", "leave one out"),
    ],
)
def test_what_cannot_be_measured_is_one_line(engines, tmp_path, monkeypatch, capsys, arguments, said):
    for file in engines.iterdir():
        shutil.copy(file, tmp_path)
    shutil.copy(tmp_path / "batch.onnx", tmp_path / "other.onnx")
    shutil.copy(tmp_path / "plate.onnx.json", tmp_path / "other.onnx.json")
    for folder in ("empty", "broken"):
        (tmp_path / folder).mkdir()
    (tmp_path / "broken" / "0.png").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    assert main([*arguments.split(), "--json", "out.json"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert said in told.err
    assert not (tmp_path / "out.json").exists()


def test_gpu_that_is_not_there_is_one_line(engines, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.latency.find_gpu", lambda: None)
    arguments = ["--checkpoint", str(engines / "model.safetensors"), "--way", "half", "--device", "cuda"]
    assert main(arguments) == 1
    assert "without an NVIDIA GPU" in capsys.readouterr().err


INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from benchmarks.latency import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def long_run(engines: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    arguments = ["--engine", str(engines / "plate.onnx"), *SMALL[:3], "--turns", "100000"]
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *arguments, "--json", str(tmp_path / "part.json")],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


@pytest.mark.heavy
def test_interrupted_run_leaves_what_there_is_and_marks_it(long_run, tmp_path):
    assert long_run.stderr is not None
    while "turn 2 of" not in (line := long_run.stderr.readline()):
        assert line
    long_run.send_signal(signal.SIGINT)
    _, told = long_run.communicate(timeout=30)
    assert long_run.returncode == 130
    assert "marked as incomplete" in told
    assert "Traceback" not in told
    record = read(tmp_path / "part.json")
    assert not record.is_complete
    assert len(next(iter(record.measures.values())).values) >= 2
    (found,) = record.details["subjects"]
    assert found["runs"] >= 40
    assert found["running_mb"] is None


def measured(name: str, *turns: list[float], **facts: Any) -> Measured:
    known = {
        "precision": "fp32",
        "device": "CPU",
        "architecture": "stlm",
        "input_size": [1024, 1024],
        "note": None,
    } | facts
    stages = [[{**dict.fromkeys(STAGES, 0.0), "infer": total / 2, "total": total} for total in turn] for turn in turns]
    return Measured(name, known, 1.0, 2.0, 3.0, 4.0, None, turns=stages)


def test_speed_up_is_that_of_each_turns_medians():
    slow, fast = measured("slow", [10, 20, 30], [40]), measured("fast", [4, 5, 6], [10])
    found = entry(fast, first=slow, batch=2)
    assert found["speed_up"] == {"median": 4, "low": 4, "high": 4}
    assert found["runs"] == 8
    assert found["frames_per_s"] == pytest.approx(1e3 * 4 / 25)
    assert entry(measured("other", [20], [5]), first=slow, batch=1)["speed_up"] == {"median": 4.5, "low": 1, "high": 8}


def test_notes_are_said_and_different_networks_are_named():
    same = [entry(measured("a", [1]), first=measured("a", [1]), batch=1)]
    assert notes(same) == []
    assert notes([{**same[0], "gpu_mb": 312.4}]) == ["a: 312 MB of the GPU's memory"]
    small = entry(measured("b", [1], input_size=[256, 256], note="emulated"), first=measured("a", [1]), batch=1)
    first, second = notes([*same, small])
    assert first == "b: emulated"
    assert "stlm at 256 x 256, stlm at 1024 x 1024" in second


@pytest.mark.parametrize(("gpu", "estimated"), [("NVIDIA H100 80GB HBM3", True), ("Orin", False), (None, False)])
def test_time_on_a_known_gpu_is_scaled_to_the_papers_as_an_estimate(monkeypatch, gpu, estimated):
    here = Device("AMD EPYC", ("avx2",), 16, gpu, None if gpu is None else "sm90")
    monkeypatch.setattr("benchmarks.latency.this_machine", lambda: here)
    recorder = Recorder("latency", "", None)
    subjects = [measured("plan", [4.0], device=gpu or "CPU"), measured("processor", [4.0], device="CPU")]
    fill(recorder, subjects, pictures=Pictures(frame_size=(96, 128)), batch=1)
    found = recorder.details["estimates"]
    assert [one["name"] for one in found] == (["plan"] if estimated else [])
    if estimated:
        assert found[0]["scaled_ms"] == pytest.approx([2.0 * 66.9 / 35.6, 2.0 * 3350 / 936])
