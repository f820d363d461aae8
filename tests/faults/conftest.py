"""An engine, and the camera program as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ..runtime.conftest import write_engine


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_engine(tmp_path_factory.mktemp("engine") / "plate.onnx")


def run_camera(engine: Path, *options: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The program itself, until it ends."""
    command = [sys.executable, "-m", "runtime.camera", "--engine", str(engine), *map(str, options)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
