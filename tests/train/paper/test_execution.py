"""Runs of a grid in processes of their own: one that dies is no matter of the others', and Ctrl-C ends all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from stlm_edge.errors import DataError
from stlm_edge.plate.part import write_dataset
from tests.settings import TWO_STREAMS
from train.__main__ import main
from train.paper import execution
from train.paper.execution import InOrder, Jobs, Update, run_all
from train.paper.grid import Run, plan, state
from train.paper.results import read_records

SMALL = ["--preset", TWO_STREAMS, "--image-size", "64", "--batch-size", "2", "--workers", "0"]
NAMES = ("one", "two")


@pytest.fixture(scope="session")
def parts(make_once) -> Path:
    """Two categories."""

    def draw(root: Path) -> None:
        for seed, name in enumerate(("disc", "rod")):
            write_dataset(
                root, train=4, test_good=2, test_defective_per_kind=1, size=(96, 96), seed=seed, category=name
            )

    return make_once("two-categories", draw)


def words(parts: Path, output: Path, *more: str) -> list[str]:
    return ["grid", "--data", str(parts), "--all-categories", *SMALL, "-o", str(output), *more]


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `stlm grid` as a program; what has not ended with the test is killed, and all it has started ends."""
    made: list[subprocess.Popen[str]] = []

    def start(parts: Path, output: Path, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "train", *words(parts, output, *more)]
        made.append(subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True))
        return made[-1]

    yield start
    for process in made:
        process.kill()
        process.wait()
        process.stderr.close()


def wait_for(condition, *, within_s: float = 300) -> None:
    last = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < last, "it did not happen"
        time.sleep(0.05)


def processes_of(line: str) -> int:
    return int(line.rpartition(" ")[2])


@pytest.mark.heavy
def test_jobs_give_what_one_after_the_other_gives(parts, tmp_path, capfd):
    assert main(words(parts, tmp_path / "one", "--epochs", "1")) == 0
    one = capfd.readouterr()
    assert main(words(parts, tmp_path / "two", "--epochs", "1", "--jobs", "2")) == 0
    two = capfd.readouterr()
    measured = [[(run.category, run.overall, run.tlm_only) for run in read_records(tmp_path / name)] for name in NAMES]
    assert measured[0] == measured[1]
    assert two.out.replace(str(tmp_path / "two"), str(tmp_path / "one")) == one.out
    begun = [line for line in two.err.splitlines() if "to train, on process" in line]
    assert len({processes_of(line) for line in begun}) == 2
    assert two.err.splitlines()[-1].endswith("2 of 2")
    assert "threshold" in (tmp_path / "two" / "demo" / "disc" / "seed-0" / "grid.log").read_text()
    assert "threshold" not in two.err


@pytest.mark.heavy
def test_run_whose_process_is_killed_fails_alone_and_is_done_by_the_next_call(started, parts, tmp_path):
    output = tmp_path / "grid"
    grid = started(parts, output, "--epochs", "400", "--jobs", "2")
    first, second = (processes_of(grid.stderr.readline().strip()) for _ in range(2))
    histories = [output / "demo" / name / "seed-0" / "history.jsonl" for name in ("disc", "rod")]
    wait_for(lambda: all(history.exists() for history in histories))
    os.kill(first, signal.SIGKILL)
    line = grid.stderr.readline()
    assert line.startswith("failed: demo, disc, seed 0: its process was killed by SIGKILL")
    assert "grid.log" in line

    grid.send_signal(signal.SIGINT)  # the other one keeps what it has learnt
    _, rest = grid.communicate(timeout=120)
    assert grid.returncode == 130
    assert rest.endswith("interrupted\n")
    assert "Traceback" not in rest
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)
    (run,) = plan(presets=[TWO_STREAMS], categories=["rod"], seeds=[0], settings={"epochs": 400}, output=output)
    assert state(run) == "to resume"
    assert "interrupted; the model is kept" in (run.folder / "grid.log").read_text()


@pytest.mark.slow
def test_processes_end_with_the_grid_that_was_killed(started, parts, tmp_path):
    grid = started(parts, tmp_path / "grid", "--epochs", "400", "--jobs", "2")
    numbers = [processes_of(grid.stderr.readline().strip()) for _ in range(2)]
    wait_for(lambda: len(list(tmp_path.glob("grid/*/*/*/history.jsonl"))) == 2)
    grid.kill()
    grid.communicate()
    wait_for(lambda: not any(Path(f"/proc/{number}").exists() for number in numbers), within_s=10)


class Told:
    """An executor that tells what it was given to tell."""

    def __init__(self, *updates: Update | None) -> None:
        self.updates = updates
        self.closed = False

    def run(self, waiting: Sequence[Run]) -> Generator[Update | None]:
        self.waiting = waiting
        try:
            yield from self.updates
        finally:
            self.closed = True


@pytest.fixture
def runs(quick, tmp_path) -> list[Run]:
    return [Run("cpu", name, 0, quick, tmp_path / "cpu" / name / "seed-0") for name in ("disc", "rod")]


def test_failures_are_given_back_and_what_runs_where_is_logged(runs, tmp_path, caplog):
    disc, rod = runs
    executor = Told(
        Update(disc, "begun", where="a (1)"),
        Update(rod, "begun", where="b (2)"),
        Update(disc, "begun", where="b (2)"),
        None,
        Update.ended(rod, "out of memory"),
        Update.ended(disc, ""),
    )
    caplog.set_level("INFO")
    (failure,) = run_all(runs, executor, data=tmp_path)
    assert (failure.run, failure.reason) == (rod, "out of memory")
    assert caplog.messages == [
        "run 1 of 2: cpu, disc, seed 0, to train, on a (1)",
        "run 2 of 2: cpu, rod, seed 0, to train, on b (2)",
        "run 1 of 2: cpu, disc, seed 0, begun again, on b (2)",
        "failed: cpu, rod, seed 0: out of memory",
        "finished: cpu, disc, seed 0, 2 of 2",
    ]


def test_terminal_has_a_table_of_what_runs_where(runs, tmp_path, monkeypatch):
    shown: list[list[str]] = []

    class Lines:
        def __enter__(self):
            return lambda lines: shown.append(list(lines))

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(execution, "live_lines", Lines)
    disc, rod = runs
    disc.folder.mkdir(parents=True)
    (disc.folder / "history.jsonl").write_text("{}\n")
    third = replace(disc, category="wood", folder=tmp_path / "wood")
    run_all(
        [*runs, third],
        Told(Update(disc, "begun", where="a, GPU 1"), Update(rod, "begun", where="b")),
        data=tmp_path,
    )
    assert shown[-1] == [
        "0 of 3 runs have ended, 1 wait",
        "  cpu, disc, seed 0  a, GPU 1  epoch 1 of 1  0 min",
        "  cpu, rod, seed 0   b         epoch 0 of 1  0 min",
    ]


def test_executor_is_closed_after_an_interrupt(runs, tmp_path, monkeypatch):
    executor = Told(Update(runs[0], "begun", where="a"))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(execution._Board, "tell", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_all(runs, executor, data=tmp_path)
    assert executor.closed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--jobs", "0"], "--jobs"),
        (["--jobs", "2", "--ray", "auto"], "give one"),
        (["--gpus-per-run", "1"], "goes with --ray"),
        (["--ray", "auto", "--gpus-per-run", "nan"], "--gpus-per-run"),
    ],
)
def test_bad_usage(arguments, words, tmp_path, capsys):
    assert main(["grid", "--data", "x", "--category", "a", "-o", str(tmp_path), *arguments]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("executor", [InOrder, partial(Jobs, count=2)])
def test_category_that_is_not_there_is_told_before_anything_is_trained(executor, parts, tmp_path):
    runs = plan(presets=["cpu"], categories=["disc", "nocat"], seeds=[0], settings={}, output=tmp_path)
    with pytest.raises(DataError, match="no category 'nocat'"):
        run_all(runs, executor(data=parts, textures=None), data=parts)
    assert not list(tmp_path.iterdir())
