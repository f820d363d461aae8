"""A process's memory is its own."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from benchmarks.memory import peak_mb, resident_mb

TELL = "from benchmarks.memory import peak_mb; print(peak_mb())"


def test_peak_is_not_that_of_the_process_that_started_it() -> None:
    np.ones(40_000_000)  # 320 MB, gone at once
    told = float(subprocess.run([sys.executable, "-c", TELL], check=True, capture_output=True, text=True).stdout)
    assert peak_mb() > 320
    assert 5 < told < 160


def test_peak_stays_when_memory_is_freed() -> None:
    block = np.ones(20_000_000)
    held = resident_mb()
    del block
    assert peak_mb() > held - 1  # Linux counts by processor and sums now and then
