"""A benchmark's JSON says where its figures are from, and comes back as it was written."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click
import pytest

import benchmarks
from benchmarks.record import Measure, read, recording, write
from stlm_edge.cli import run
from stlm_edge.errors import DataError, SpecError

RESULTS = Path(benchmarks.__file__).parent / "results"


@click.command()
@click.option("--json", "path", type=click.Path(path_type=Path))
@click.option("--fail", type=click.Choice(["error", "interrupt", "early"]))
def command(path: Path, fail: str | None) -> None:
    with recording("latency", path) as recorder:
        if fail == "early":
            raise DataError("nothing there")
        recorder.measure("a", [1.0, 3.0, 2.0], unit="ms", better="lower")
        recorder.details["sizes"] = [1, 2]
        if fail == "error":
            raise DataError("broke off")
        if fail == "interrupt":
            raise KeyboardInterrupt


@pytest.mark.heavy
def test_record_comes_back_with_command_device_and_commit(tmp_path: Path) -> None:
    path = tmp_path / "a file.json"
    assert run(command, ["--json", str(path)]) == 0
    record = read(path)
    assert record.command == f"python -m benchmarks.latency --json '{path}'"
    assert record.measures == {"a": Measure("ms", "lower", (1.0, 3.0, 2.0))}
    assert record.measures["a"].median == 2
    assert record.details == {"sizes": [1, 2]}
    assert record.is_complete
    assert record.device.cores > 0
    assert "numpy" in record.versions
    assert len(record.commit.rstrip("+")) in (7, len("no commit"))


@pytest.mark.parametrize(("fail", "code"), [("error", 1), ("interrupt", 130)])
def test_what_breaks_off_is_written_and_marked(
    tmp_path: Path, fail: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "part.json"
    assert run(command, ["--json", str(path), "--fail", fail]) == code
    assert not read(path).is_complete
    assert "incomplete" in capsys.readouterr().err


def test_what_fails_before_the_first_figure_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    path.write_text("what was there before")
    assert run(command, ["--json", str(path), "--fail", "early"]) == 1
    assert path.read_text() == "what was there before"


def test_unwritable_place_is_found_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert run(command, ["--json", str(tmp_path / "file" / "x.json")]) == 1
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize("values", [(), (float("nan"),), (1.0, float("inf"))])
def test_measure_without_finite_values_is_refused(values: tuple[float, ...]) -> None:
    with pytest.raises(SpecError, match="at least one"):
        Measure("ms", "lower", values)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "holds a list, expected a JSON object"),
        ("{}", "no benchmark's record"),
        ('{"schema_version": 99, "benchmark": "latency"}', "schema version 99"),
        ('{"schema_version": 1, "benchmark": "latency"}', "schema version 1"),
        ('{"schema_version": 2, "benchmark": "latency"}', "damaged"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(DataError, match=said):
        read(path)


def test_missing_file_and_damaged_measures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "none.json")
    path = tmp_path / "x.json"
    assert run(command, ["--json", str(path)]) == 0
    content = json.loads(path.read_text())
    content["measures"]["a"]["values"] = ["fast"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="damaged"):
        read(path)


def test_record_that_nothing_can_make_any_more_names_the_commit_that_could(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    assert run(command, ["--json", str(path)]) == 0
    assert read(path).made_by_commit is None
    write(path, dataclasses.replace(read(path), made_by_commit="0123456"))
    assert read(path).made_by_commit == "0123456"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_committed_record_can_be_read_and_made_again_or_says_by_which_commit(path: Path) -> None:
    record = read(path)
    assert record.is_complete
    assert (RESULTS.parent / f"{record.benchmark}.py").is_file() == (record.made_by_commit is None)
