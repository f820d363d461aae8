"""A picture that would decode to gigabytes costs itself, and nothing else."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from runtime.camera import main as camera
from runtime.inspect import main as inspect
from stlm_edge.imaging import write_image
from stlm_edge.spec import PIXEL_LIMIT_VARIABLE
from tests.picture_files import png

from .conftest import picture


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three pictures, the second of which announces more than the limit."""
    monkeypatch.setenv(PIXEL_LIMIT_VARIABLE, "100")  # put back after an option has changed it
    for name in ("a.png", "c.png"):
        write_image(tmp_path / "in" / name, picture(60))
    (tmp_path / "in" / "b.png").write_bytes(png((25_000, 25_000), b"", bits=1, colour=0))
    return tmp_path / "in"


def errors(results: Path) -> dict[str, str]:
    with (results / "scores.csv").open(newline="") as file:
        return {row["path"]: row["error"] for row in csv.DictReader(file)}


def test_bomb_in_a_batch_costs_itself_alone(engine: Path, folder: Path, tmp_path: Path) -> None:
    assert inspect([str(engine), str(folder), "-o", str(tmp_path / "out")]) == 1
    found = errors(tmp_path / "out")
    assert [bool(error) for error in found.values()] == [False, True, False]
    assert "b.png announces 25000 x 25000 (height x width), expected at most 100 megapixels" in found["b.png"]


@pytest.mark.parametrize("query", ["", "?watch=1"])
def test_bomb_in_a_folder_of_a_line_costs_itself_alone(engine: Path, folder: Path, query: str, tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    source = f"{folder}{query}"
    assert camera(["--engine", str(engine), "--source", source, "--frames", "2", "--output", str(events)]) == 0
    told = [json.loads(line) for line in events.read_text().splitlines()]
    assert [Path(event["source"]).name for event in told if "frame" in event] == ["a.png", "c.png"]


def test_limit_is_an_option_of_the_command(engine: Path, folder: Path, tmp_path: Path) -> None:
    write_image(folder / "b.png", picture(60, size=(200, 200)))
    arguments = [str(engine), str(folder), "-o"]
    assert inspect([*arguments, str(tmp_path / "under"), "--max-megapixels", "0.039"]) == 1
    assert "expected at most 0.039 megapixels" in errors(tmp_path / "under")["b.png"]
    assert inspect([*arguments, str(tmp_path / "over"), "--max-megapixels", "0.04"]) == 0


def test_area_is_limited_too(engine: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(engine), str(folder / "a.png"), "-o", str(tmp_path / "out"), "--ignore", str(folder / "b.png")]
    assert inspect(arguments) == 1
    assert "b.png announces 25000 x 25000" in capsys.readouterr().err
