"""The files that images are built from: what they promise, and the steps of the one for a processor, as far as it goes.

There is no engine here that builds images. A fresh virtual environment stands in for the image, and folders for `/`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "docker").iterdir())


def instructions(path: Path) -> list[tuple[str, str]]:
    """Word and arguments of each, without comments."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_image_runs_the_camera_as_nobody_special_and_is_watched(path: Path) -> None:
    found = instructions(path)
    steps = dict(found)  # the last of each
    assert steps["USER"] == "10001"
    assert json.loads(steps["VOLUME"]) == ["/models", "/data"]
    assert json.loads(steps["ENTRYPOINT"]) == ["stlm"]
    command = json.loads(steps["CMD"])
    assert command[0] == "camera"
    assert command[command.index("--output") + 1] == "/data/events.jsonl"
    assert "/data/events.jsonl" in steps["HEALTHCHECK"]
    users = [index for index, (word, _) in enumerate(found) if word == "USER"]
    assert all(word != "RUN" for word, _ in found[users[0] :])  # nothing is installed for that user only


@pytest.mark.heavy
@pytest.mark.slow
def test_steps_of_the_image_for_a_processor(traced_engine: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    environment = os.environ | {"PATH": f"{tmp_path}/venv/bin:{os.environ['PATH']}", "STLM_SOURCE": "test://?frames=3"}
    environment.pop("PYTHONPATH", None)

    def inside(text: str) -> str:
        return re.sub(r"(?<![\w.])/(?=(opt|models|data)\b)", f"{tmp_path}/", text)

    def run(command: str | list[str], folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            shell=isinstance(command, str),
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    shutil.copytree(traced_engine.parent, tmp_path / "models")
    (tmp_path / "data").mkdir()
    ran, steps, folder = [], {}, tmp_path
    for word, arguments in instructions(ROOT / "docker/cpu.Dockerfile"):
        steps[word] = arguments
        if word == "WORKDIR":
            folder = Path(inside(arguments))
            folder.mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            assert arguments == ". ."
            copy_context(folder)
        elif word == "RUN" and not arguments.startswith("useradd "):  # which would be one of this machine
            done = run(inside(arguments), folder)
            assert done.returncode == 0, done.stderr
            ran.append(arguments.split()[0])
    assert ran == ["python"]

    check = json.loads(steps["HEALTHCHECK"].partition(" CMD ")[2])
    healthy = [inside(part) for part in check]
    assert run(healthy, folder).returncode != 0
    command = [inside(part) for part in (*json.loads(steps["ENTRYPOINT"]), *json.loads(steps["CMD"]))]
    command[command.index("--engine") + 1] = str(tmp_path / "models/small.onnx")
    done = run(command, folder)
    assert done.returncode == 0, done.stderr
    events = tmp_path / "data/events.jsonl"
    assert len([line for line in events.read_text().splitlines() if "score" in json.loads(line)]) == 3
    assert run(healthy, folder).returncode == 0
    os.utime(events, (time.time() - 120,) * 2)
    assert run(healthy, folder).returncode != 0


def copy_context(folder: Path) -> None:
    """What `.dockerignore` lets through; its rules are `*`, then what is let in, then what of that is left out."""
    first, *rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in ("", "#")]
    assert first == "*"
    for name in (rule[1:] for rule in rules if rule.startswith("!")):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    for name in (rule for rule in rules if rule[0] not in "!*"):
        shutil.rmtree(folder / name)
