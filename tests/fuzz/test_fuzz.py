"""Damaged files of every kind are refused in one line or give an answer, in seconds and without gigabytes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .targets import TARGETS
from .trial import Tally, Worker, altered, lay_out, worker

FILES = 200
"""Damaged ones of each target; `python -m tests.fuzz` tries as many as there is time for."""

pytestmark = [pytest.mark.heavy, pytest.mark.slow]


@pytest.fixture(scope="module")
def tries() -> Iterator[Worker]:
    with worker() as made:
        yield made


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_refused_in_one_line_or_give_an_answer(name: str, tries: Worker) -> None:
    tally = Tally()
    for seed in range(FILES):
        tally.add(seed, tries.attempt(name, seed))
    assert not tally.faults
    assert TARGETS[name].is_mended or tally.counts["refused"] > FILES / 20, "what is damaged is noticed"


COMMANDS: dict[str, list[str]] = {
    "sidecar-raw": ["runtime.inspect", "n.onnx", ".", "-o", "out"],
    "kernels": ["export", "report", "x.plan"],
    "preset": ["train", "fit", "--preset", "p.yaml", "--data", "nowhere", "--output", "run"],
    "report latency": ["benchmarks.report", "a.json", "--markdown", "report.md"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_program_ends_with_one_line_and_exit_code_1(name: str, tmp_path: Path) -> None:
    """One of the files that are refused, by one program of each folder."""
    files, seed, refused = TARGETS[name].make(), 0, 0
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    while not refused:
        assert seed < 6, "damage is noticed"
        folder = tmp_path / str(seed)
        lay_out(altered(name, seed, files), folder)
        module, *arguments = COMMANDS[name]
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=folder, env=environment, capture_output=True, text=True, errors="replace", timeout=120, check=False,
        )  # fmt: skip
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in done.stderr
        assert done.returncode == 0 or (done.returncode, len(errors)) == (1, 1), done.stderr
        refused += done.returncode
        seed += 1


def test_same_seed_damages_alike() -> None:
    files = TARGETS["roi"].make()
    assert altered("roi", 7, files) == altered("roi", 7, files) != altered("roi", 8, files)
