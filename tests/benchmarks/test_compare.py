"""Two records are compared, and those that should not be are refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compare import main
from benchmarks.record import Device, Measure, Record, write

Make = Callable[..., Path]

STEADY = (10.0, 10.1, 9.9, 10.0, 10.2, 9.8)


@pytest.fixture
def record(tmp_path: Path) -> Make:
    """Writes a record with a measure of ten milliseconds times a factor, and returns its path."""

    def make(name: str, *, factor: float = 1.0, measures: dict[str, Measure] | None = None, **changes: Any) -> Path:
        kept = Record(
            benchmark="latency",
            command="python -m benchmarks.latency",
            date="2026-01-01T00:00:00+00:00",
            device=Device("a processor", ("avx2",), 2),
            versions={"python": "3.11.7", "openvino": "2025.1"},
            git={"commit": "0123456789", "changed": False},
            is_complete=True,
            measures=measures or {"tiles total p50": Measure("ms", "lower", tuple(factor * turn for turn in STEADY))},
            details={"input_size": [256, 256], "batch": 1},
        )
        path = tmp_path / f"{name}.json"
        write(path, dataclasses.replace(kept, **changes))
        return path

    return make


def compare(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("factor", "code", "verdict"), [(1.0, 0, "same within noise"), (1.3, 1, "slower"), (0.7, 0, "faster")]
)
def test_exit_code_says_whether_it_became_slower(
    record: Make, capsys: pytest.CaptureFixture[str], factor: float, code: int, verdict: str
) -> None:
    assert compare(record("old"), record("new", factor=factor)) == code
    told = capsys.readouterr()
    last = told.out.splitlines()[-1]
    assert last.startswith("tiles total p50")
    assert last.endswith(verdict)
    assert f"{factor:.3f}" in last
    assert len(told.err.splitlines()) == code
    assert ("tiles total p50 (slower)" in told.err) == bool(code)


def test_force_does_not_excuse_a_slowdown(record: Make) -> None:
    assert compare(record("old"), record("new", factor=1.3), "--force") == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"device": Device("another", ("avx2",), 2)}, "different devices"),
        ({"benchmark": "loop"}, "benchmarks.loop"),
        ({"is_complete": False}, "broke off"),
        ({"details": {"input_size": [512, 512], "batch": 1}}, "input size [256, 256]"),
    ],
)
def test_what_differs_is_refused_and_with_force_said_loudly(
    record: Make, capsys: pytest.CaptureFixture[str], change: dict[str, Any], said: str
) -> None:
    old, new = record("old"), record("new", **change)
    assert compare(old, new) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) == 1
    assert said in told.err
    assert "--force" in told.err
    assert compare(old, new, "--force") == 0
    told = capsys.readouterr()
    assert "same within noise" in told.out
    assert "WARNING" in told.err
    assert said in told.err


def test_exact_measures_are_compared_across_devices(record: Make, capsys: pytest.CaptureFixture[str]) -> None:
    kernels = {"plan kernels": Measure("kernels", "lower", (286.0,), is_exact=True)}
    assert compare(record("old", measures=kernels), record("new", measures=kernels, device=Device("b", (), 1))) == 0
    assert "the same" in capsys.readouterr().out


def test_further_runs_must_be_alike_too(record: Make, capsys: pytest.CaptureFixture[str]) -> None:
    old, new, other = record("old"), record("new"), record("other", is_complete=False)
    assert compare(old, new, "--new", other) == 1
    assert "other.json" in capsys.readouterr().err


def test_further_runs_widen_the_interval(record: Make, capsys: pytest.CaptureFixture[str]) -> None:
    quiet, busy = record("quiet"), record("busy", factor=1.3)
    assert compare(quiet, busy) == 1
    assert compare(quiet, busy, "--old", record("busy2", factor=1.3), "--new", record("quiet2")) == 0
    assert "12, 12" in capsys.readouterr().out


def test_vanished_measure_is_refused_unless_forced(record: Make, capsys: pytest.CaptureFixture[str]) -> None:
    steady = Measure("ms", "lower", STEADY)
    old = record("old", measures={"a": steady, "b": steady})
    new = record("new", measures={"a": steady, "c": steady})
    assert compare(old, new) == 1
    assert "b (vanished)" in capsys.readouterr().err
    assert compare(old, new, "--force") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[-3:]] == ["b", "a", "c"]


def test_versions_that_changed_are_told(record: Make, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(record("old"), record("new", versions={"python": "3.11.7", "openvino": "2025.2"})) == 0
    out = capsys.readouterr().out
    assert "openvino: old 2025.1, new 2025.2" in out
    assert "python: old" not in out


def test_few_turns_are_said(record: Make, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = ({"a": Measure("ms", "lower", STEADY[:count])} for count in (1, 2))
    assert compare(record("old", measures=one), record("new", measures=one)) == 0
    assert "one turn" in capsys.readouterr().out
    assert compare(record("old", measures=two), record("new", measures=one)) == 0
    assert "few turns" in capsys.readouterr().out


def test_comparison_is_written_as_json(record: Make, tmp_path: Path) -> None:
    old, new, path = record("old"), record("new", factor=1.3), tmp_path / "compared.json"
    assert compare(old, new, "--json", path) == 1
    content = json.loads(path.read_text())
    assert content["old"] == [str(old)]
    assert content["changes"][0]["verdict"] == "slower"
    assert content["changes"][0]["ratio"] == pytest.approx(1.3)


def test_bad_files_are_one_line(record: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.json").write_text("not JSON")
    for bad in (tmp_path / "none.json", tmp_path / "text.json", tmp_path):
        assert compare(record("old"), bad) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
    assert compare(record("old")) == 2
    assert compare(record("old"), record("new"), "--json", record("old") / "x.json") == 1


def test_record_compared_with_itself_is_the_same(record: Make) -> None:
    path = record("old")
    assert compare(path, path) == 0
