"""Plans by the real pycuda and cuda-bindings, on a driver without a GPU; the scenarios are in `real_driver.py`.

The driver is compiled here. `make test` builds pycuda once and keeps it, see `libcuda/build_pycuda.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .libcuda.build_pycuda import build_libcuda, pycuda_folder

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc to compile the driver with"),
]

ROOT = Path(__file__).parents[3]
PYCUDA_FOLDER = pycuda_folder()
PYCUDA = pytest.mark.skipif(not PYCUDA_FOLDER.is_dir(), reason="pycuda is not built: make test builds it with g++")
DRIVERS = [
    pytest.param("pycuda", marks=PYCUDA),
    pytest.param("pycuda alone", marks=PYCUDA),
    "cuda-bindings",
]

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def libcuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("libcuda")
    build_libcuda(folder)
    return folder


@pytest.fixture(params=DRIVERS)
def run(request: pytest.FixtureRequest, libcuda: Path, tmp_path: Path) -> Run:
    """Runs a scenario with each driver, and returns how it ended."""

    def run(scenario: str, *, code: int = 0, left: str | None = "left 0, retained 0, current 0") -> object:
        done = subprocess.run(
            [sys.executable, "-m", "tests.runtime.gpu.real_driver", scenario, request.param, tmp_path],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join((str(ROOT), str(PYCUDA_FOLDER))),
                "LD_LIBRARY_PATH": str(libcuda),
                "XDG_CACHE_HOME": str(tmp_path),
                "GPU_REPORT": "1",
            },
        )
        assert done.returncode == code, done.stderr
        assert left is None or done.stderr.splitlines()[-1] == left
        return done

    return run


def test_program_that_ends_while_a_thread_hangs_in_the_driver_ends(run: Run) -> None:
    assert run("program_ends_while_a_thread_hangs", left=None).stdout == "open 1\n"


@pytest.mark.parametrize(
    "scenario",
    [
        "two_in_hand",
        "shared_memory",
        "dynamic_batch",
        "three_at_once",
        "context_of_somebody_else",
        "no_room",
        "other_threads",
        "waiting_lets_others_work",
    ],
)
def test_plan_is_run(run: Run, scenario: str) -> None:
    run(scenario)


def test_thirty_reopenings_leave_nothing(run: Run) -> None:
    run("thirty_reopenings", left="left 0, retained 1, current 0")  # by somebody else


def test_thread_that_ends_with_an_open_detector_does_not_abort_the_program(run: Run) -> None:
    assert run("thread_ends").stdout == "the thread has ended\n"


def test_program_that_ends_with_an_open_detector_gives_everything_back(run: Run) -> None:
    assert run("program_ends").stdout == "open 1\n"
    run("program_raises", code=1)


def test_whichever_call_of_the_driver_fails_nothing_is_left(run: Run) -> None:
    run("each_call_fails")


def test_lost_gpu_is_an_error_and_ends_no_program(run: Run) -> None:
    done = run("gpu_is_lost")
    assert "CUDA cannot wait for the GPU any more (cuCtxSynchronize failed: unspecified launch failure)" in done.stderr


def test_context_that_somebody_else_destroyed_is_an_error_and_ends_no_program(run: Run) -> None:
    done = run("context_is_gone", left=None)
    assert done.stdout == "closed\n"
    assert "CUDA cannot be used any more (cuCtxPushCurrent failed: context is destroyed)" in done.stderr


def test_context_is_made_current_in_microseconds(run: Run) -> None:
    assert float(run("price_of_a_context").stdout.split()[0]) < 200
