"""A service or container may run under a bare user number: no HOME, no line in /etc/passwd, no name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.settings import TWO_STREAMS

PROGRAM = """
import os, pwd, sys, runpy
def nobody(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid = nobody
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def run(module: str, *arguments: object, cwd: Path) -> str:
    """What a program says on stderr without a home; it has to succeed and to leave nothing in its folder."""
    nameless = {name: value for name, value in os.environ.items() if name not in ("HOME", "USER", "LOGNAME", "LNAME")}
    nameless = {name: value for name, value in nameless.items() if not name.startswith("XDG_")}
    nameless["PYTHONPATH"] = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, module, *map(str, arguments)],
        env=nameless,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.heavy
def test_training_without_a_home_asks_the_teacher_anew_and_says_so(plate: Path, tmp_path: Path) -> None:
    arguments = ["--preset", TWO_STREAMS, "--image-size", "64", "--epochs", "2", "--data", plate / "plate", "-o", "run"]
    said = run("train", "fit", *arguments, cwd=tmp_path)
    assert said.count("the teacher's features are computed anew each time") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
def test_all_that_comes_after_a_training_runs_without_a_home(plate: Path, trained_run: Path, tmp_path: Path) -> None:
    checkpoint = shutil.copy(trained_run / "model.safetensors", tmp_path)
    data = ["--data", plate / "plate"]
    run("train", "evaluate", checkpoint, *data, cwd=tmp_path)
    run("export", "onnx", checkpoint, "-o", "plate.onnx", "--data", plate / "plate" / "test", cwd=tmp_path)
    run("runtime.inspect", "plate.onnx", plate / "plate" / "test" / "good", "-o", "out", cwd=tmp_path)
    run("runtime.doctor", cwd=tmp_path)
    source = ["--source", "test://?frames=3&size=64x64", "--summary", "summary.json"]
    run("runtime.camera", "--engine", "plate.onnx", *source, cwd=tmp_path)
    assert not any(path.name in ("~", ".cache", ".triton") for path in tmp_path.iterdir())
