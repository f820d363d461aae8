"""Logs of a running line that are rotated, moved, deleted or emptied by others: no verdict goes where nobody looks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stlm_edge.errors import counted

from ..runtime.sinks.conftest import small_disk  # noqa: F401 - a fixture
from .line_process import camera, frames

pytestmark = pytest.mark.heavy

NAMES = ("events.jsonl", "scores.csv")


def test_no_verdict_is_lost_to_rotation_or_to_a_folder_that_is_moved(engine: Path, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    paths = [logs / name for name in NAMES]
    kept: dict[str, list[Path]] = {name: [] for name in NAMES}
    untouched = tmp_path / "untouched.jsonl"
    with camera(tmp_path, engine, *paths, untouched) as line:

        def wait_for_more() -> None:
            counts = [len(frames(path)) for path in paths]
            line.until(lambda: all(len(frames(path)) > count + 5 for path, count in zip(paths, counts, strict=True)))

        wait_for_more()
        for path in paths:  # rename, create, compress, as logrotate does at once
            away = path.with_name(f"{path.name}.1")
            path.rename(away)
            path.touch()
            subprocess.run(["gzip", away], check=True)
            kept[path.name].append(away.with_name(f"{away.name}.gz"))
        wait_for_more()
        for path in paths:
            path.rename(tmp_path / f"renamed-{path.name}")
            kept[path.name].append(tmp_path / f"renamed-{path.name}")
        wait_for_more()
        logs.rename(tmp_path / "moved")
        for name in NAMES:
            kept[name] = [tmp_path / "moved" / path.name if path.parent == logs else path for path in kept[name]]
            kept[name].append(tmp_path / "moved" / name)
        wait_for_more()
        logs.rename(tmp_path / "replaced")
        logs.mkdir()
        for name in NAMES:
            kept[name].append(tmp_path / "replaced" / name)
        wait_for_more()
        assert line.end() == 0
    for name in NAMES:
        found = [number for path in (*kept[name], logs / name) for number in frames(path)]
        assert found == frames(untouched)
        said = line.said.read_text()
        # The first time a line may come before gzip has taken the old file away, and finds it moved; or even before the
        # new one is there.
        gone = said.count(f"{logs / name} was deleted, or moved and compressed, while it was written; the lines go on")
        moved = said.count(f"{logs / name} was moved while it was written; ")
        assert gone <= 1 and gone + moved == 4


def test_deleted_and_emptied_logs_are_gone_on_with_and_said(engine: Path, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    paths = [logs / name for name in NAMES]
    untouched = tmp_path / "untouched.jsonl"
    with camera(tmp_path, engine, *paths, untouched) as line:
        for act in ("delete", "remove folder", "copytruncate"):
            line.until(lambda: all(len(frames(path)) > 5 for path in paths))
            if act == "remove folder":
                shutil.rmtree(logs)
            for path in paths:
                if act == "delete":
                    path.unlink()
                elif act == "copytruncate":
                    os.truncate(path, 0)
        line.until(lambda: all(len(frames(path)) > 5 for path in paths))
        assert line.end() == 0
    for path in paths:
        found = frames(path)
        assert len(found) > 5 and found == frames(untouched)[-len(found) :]
        said = line.said.read_text()
        assert said.count(f"{path} was deleted, or moved and compressed, while it was written") == 2
        assert said.count(f"{path} was cut from ") == 1


@pytest.mark.parametrize("name", NAMES)
def test_second_program_on_the_same_file_is_refused_and_the_first_goes_on(
    engine: Path, tmp_path: Path, name: str
) -> None:
    path, other = tmp_path / name, tmp_path / f"link-{name}"
    untouched = tmp_path / "untouched.jsonl"
    with camera(tmp_path, engine, path, untouched) as line:
        line.until(lambda: len(frames(path)) > 5)
        other.hardlink_to(path)
        command = [sys.executable, "-m", "runtime.camera", "--engine", str(engine), "--source", "test://?frames=3"]
        second = subprocess.run([*command, "--output", str(other)], capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert second.stderr.splitlines()[-1].startswith(f"error: {other} is being written by another program")
        assert "Traceback" not in second.stderr
        assert line.end() == 0
    assert len(frames(path)) > 5 and frames(path) == frames(untouched)


def test_full_disk_costs_the_lines_that_did_not_fit_and_they_are_counted(
    engine: Path,
    tmp_path: Path,
    small_disk: Callable[[int], Path],  # noqa: F811
) -> None:
    disk = small_disk(256)
    full, whole = disk / "events.jsonl", tmp_path / "events.jsonl"
    with camera(tmp_path, engine, full, whole) as line:
        line.until(lambda: len(frames(full)) > 5)
        (disk / "others").write_bytes(bytes(200_000))
        line.until_said("No space left")
        (disk / "others").unlink()
        line.until_said("is written again")
        last = frames(full)[-1]
        line.until(lambda: frames(full)[-1] > last + 5)
        assert line.end() == 0
        there, all_frames = frames(full), frames(whole)
    assert f"frames inspected   {len(all_frames)} in" in line.printed.read_text()
    missing = len(all_frames) - len(there)
    assert missing > 0 and set(there) < set(all_frames)
    assert f"output failed      {counted(missing, 'frame')} not written to {full}" in line.printed.read_text()
