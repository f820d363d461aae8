"""The loop's benchmark runs, and its figures agree with each other."""

from __future__ import annotations

import os
import shutil
import statistics
from pathlib import Path

import pytest

from benchmarks.loop import main
from benchmarks.loop_measures import FreeSource, host_times_ms, pictures_of, run_line, timeless_detector
from benchmarks.loop_parts import require_each_once, triggered
from benchmarks.record import read
from runtime.part import Part
from stlm_edge.errors import VerificationError

from ..runtime.conftest import write_engine

QUICK = ["--frames", "20", "--engine-frames", "3", "--turns", "2", "--memory-frames", "100", "--parts", "200"]
QUICK += ["--page-frames", "10", "--viewers", "0"]
MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
SMALL = ["--frame-size", "96", "128", "--input-size", "64", "64"]


def test_line_without_a_network_inspects_every_frame_and_finds_the_marked_ones() -> None:
    with timeless_detector((64, 64)) as detector:
        taken: list[int] = []
        source = FreeSource(pictures_of((64, 64)), frames=64, on_frame=taken.append)
        summary = run_line(source, detector).summary(source, output_drops={}, output_failures={})
    assert (summary.frames, summary.anomalies, summary.dropped) == (64, 4, 0)
    assert summary.faults == {}
    assert taken == list(range(64))


def test_host_times_are_one_for_each_frame() -> None:
    times_ms = host_times_ms(frame_size=(96, 128), input_size=(64, 64), frames=25)
    assert len(times_ms) == 25
    assert min(times_ms) > 0


@pytest.mark.heavy
def test_figures_agree_with_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine, record = write_engine(tmp_path / "plate.onnx"), tmp_path / "loop.json"
    assert main([*QUICK, *SMALL, "--viewers", "2", "--engine", str(engine), "--json", str(record)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["median", "turns"]
    assert printed[-1].startswith("wanted: 500 frames a second")
    found, measures = read(record).details, read(record).measures
    assert list(measures["loop throughput"].values) == found["loop"]["frames_per_s"]["turns"]
    assert list(measures["start besides the engine"].values) == found["start"]["besides_s"]["turns"]
    assert (found["frame_size"], found["input_size"]) == ([96, 128], [64, 64])
    host, memory, around, start = (found[name] for name in ("host", "memory", "engine", "start"))
    for low, high in zip(host["p50_ms"]["turns"], host["p95_ms"]["turns"], strict=True):
        assert 0 < low <= high
    assert len(memory["resident_mb"]) == 21
    assert memory["growth_mb"] == memory["resident_mb"][-1] - memory["resident_mb"][0]
    assert around["backend"] == "openvino"
    for kind, rate in (("ratio", "loop_frames_per_s"), ("cameras_ratio", "cameras_frames_per_s")):
        for alone, loop, ratio in zip(
            *(around[name]["turns"] for name in ("backend_frames_per_s", rate, kind)), strict=True
        ):
            assert loop > 0
            assert ratio == pytest.approx(loop / alone)
    assert around["cameras"] == 4
    for name, parts in (("hand_over", 100), ("hand_over_of_the_engine", 3)):
        handed = found[name]
        assert handed["parts"] == parts
        for way in ["modbus", "mqtt"] if MOSQUITTO else ["modbus"]:
            besides, whole = (handed[way][kind]["turns"] for kind in ("besides_network_p95_ms", "p95_ms"))
            assert len(whole) == 2
            for part_of, all_of in zip(besides, whole, strict=True):
                assert 0 < part_of <= all_of < 20_000
    assert measures["share of the pace with 2 viewers"].values == tuple(found["page"]["ratio"]["turns"])
    assert around["ratio"]["median"] == statistics.median(around["ratio"]["turns"])
    resident = found["engine_memory"]
    assert resident["besides_engine_mb"] == pytest.approx(
        resident["running_mb"] - resident["opened_mb"] + resident["before_mb"]
    )
    for verdict, opening, besides, infer in zip(
        *(start[name]["turns"] for name in ("verdict_s", "opening_s", "besides_s", "infer_s")), strict=True
    ):
        assert besides == pytest.approx(verdict - opening)
        assert 0 < infer < verdict


@pytest.mark.heavy
def test_without_an_engine_only_the_loop_is_measured(tmp_path: Path) -> None:
    assert main([*QUICK, *SMALL, "--json", str(tmp_path / "loop.json")]) == 0
    assert not {"engine", "start"} & set(read(tmp_path / "loop.json").details)


def test_interrupted_run_leaves_what_it_has_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.loop._apart", interrupted)
    assert main([*QUICK, *SMALL, "--json", str(tmp_path / "loop.json")]) == 130
    record = read(tmp_path / "loop.json")
    assert not record.is_complete
    assert set(record.measures) == {"loop throughput", "host p50", "host p95"}


def test_missing_engine_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, *SMALL, "--engine", str(tmp_path / "none.onnx")]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


def test_triggered_parts_have_one_result_each_in_order() -> None:
    with timeless_detector((64, 64)) as detector:
        per_second, verdicts = triggered(detector, parts=160, frame_size=(64, 64))
    assert verdicts == {"good": 150, "reject": 10}
    assert per_second > 0


@pytest.mark.parametrize(
    ("numbers", "verdict", "message"),
    [
        ([0, 1, 3], "good", "1 have no result, 0 have more than one, 0 came out of order"),
        ([0, 1, 1, 2, 3], "good", "0 have no result, 1 have more than one, 1 came out of order"),
        ([0, 2, 1, 3], "good", "0 have no result, 0 have more than one, 1 came out of order"),
        ([0, 1, 2, 3], "missed", "4 were not judged"),
    ],
)
def test_part_without_its_one_result_is_an_error(numbers: list[int], verdict: str, message: str) -> None:
    results = [Part(number, None, verdict, 1, None, None, 0.0, 0.0) for number in numbers]
    with pytest.raises(VerificationError, match=message):
        require_each_once(results, parts=4)
