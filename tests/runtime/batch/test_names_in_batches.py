"""`stlm inspect` on names of every kind: each once, told apart, and gone on with."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import cv2
import pytest

from runtime.batch.listing import overlay_names
from runtime.camera import main as camera
from runtime.inspect import main
from stlm_edge.files import temporary_name
from stlm_edge.imaging import write_image
from stlm_edge.names import from_cell, unescaped

from ..conftest import picture

NAMES = (
    b"a.png",
    b"gr\xfc\xdfe.png",
    b"gr\\xfc\\xdfe.png",
    "部".encode() * 78 + b".png",
    b"x" * 251 + b".png",
    b"x" * 250 + b"y.png",
    b"a\nb.png",
    b"a\\x0ab.png",
    b"\x1b[31mred.png",
    b"=1+1.png",
    b"'=1+1.png",
    b'-a|`b`,"c"\t.png',
    b"@x/=y.png",
)


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    folder = tmp_path / "odd"
    data = cv2.imencode(".png", picture(90, size=(32, 64)))[1].tobytes()
    for name in NAMES:
        path = folder / os.fsdecode(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError:
            pytest.skip("this file system has no such names")
    return folder


def rows(results: Path) -> list[dict[str, str]]:
    with (results / "scores.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def inspected(results: Path) -> list[str]:
    return sorted(from_cell(row["path"]) for row in rows(results))


def test_each_name_is_inspected_once_and_gone_on_with(
    engine: Path, odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, every = tmp_path / "results", sorted(map(os.fsdecode, NAMES))
    arguments = [str(engine), str(odd), "-o", str(results), "--overlays", "all"]
    assert main(arguments) == 0
    assert inspected(results) == every
    assert len((results / "scores.csv").read_bytes().splitlines()) == 1 + len(NAMES)
    assert not any(row["path"].startswith(("=", "+", "-", "@")) for row in rows(results))
    overlays = {path for path in (results / "overlays").rglob("*") if path.is_file()}
    assert len(overlays) == len(NAMES)
    # A run that was killed in its middle.
    lines = (results / "scores.csv").read_bytes().splitlines(keepends=True)
    (results / "scores.csv").write_bytes(b"".join(lines[:6]))
    assert main(arguments) == 0
    assert f"done before         {5}" in capsys.readouterr().out
    assert inspected(results) == every
    assert {path for path in (results / "overlays").rglob("*") if path.is_file()} == overlays


def test_folder_with_an_odd_name_is_gone_on_with(
    engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / os.fsdecode(b"gr\xfc\n\x1b[31m")
    data = cv2.imencode(".png", picture(90, size=(32, 64)))[1].tobytes()
    for name in ("good/a.png", "=bad/b.png"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(data)
    results = folder / "results"
    for _ in range(2):
        assert main([str(engine), str(folder), "-o", str(results)]) == 0
    printed = capsys.readouterr()
    assert "done before         2" in printed.out
    assert "\x1b" not in printed.out + printed.err
    assert [row["label"] for row in rows(results)] == ["'=bad", "good"]
    record = json.loads((results / "run.json").read_bytes().decode())
    assert unescaped(record["root"]) == str(folder)
    record["root"].encode()


def test_rows_of_earlier_versions_are_gone_on_with(engine: Path, tmp_path: Path) -> None:
    """They have names as they are."""
    for name in ("a\\b.png", "=c.png", "d e,f.png"):
        write_image(tmp_path / "in" / name, picture(90, size=(32, 64)))
    results = tmp_path / "results"
    arguments = [str(engine), str(tmp_path / "in"), "-o", str(results)]
    assert main(arguments) == 0
    (results / ".scores.csv.crc32").unlink()
    table = (results / "scores.csv").read_text().replace("'=c.png", "=c.png")
    (results / "scores.csv").write_text(table)
    assert main(arguments) == 0
    assert (results / "scores.csv").read_text() == table


def test_overlay_whose_name_the_file_system_refuses_costs_itself_alone(
    engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here since another picture's folder has that name."""
    write_image(tmp_path / "in" / "a.png", picture(250, size=(32, 64)))
    write_image(tmp_path / "in" / "a.jpg" / "b.png", picture(250, size=(32, 64)))
    results = tmp_path / "results"
    assert main([str(engine), str(tmp_path / "in"), "-o", str(results), "--overlays", "all"]) == 0
    assert len(rows(results)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("no overlay of ")]
    assert line.startswith(("no overlay of a.png: ", "no overlay of a.jpg/b.png: "))  # whichever came second


def test_left_over_of_a_killed_run_is_written_over(engine: Path, tmp_path: Path) -> None:
    name = "x" * 250 + ".png"
    write_image(tmp_path / "in" / name, picture(250, size=(32, 64)))
    overlays = tmp_path / "results" / "overlays"
    overlays.mkdir(parents=True)
    left = temporary_name(overlays / f"{'x' * 250}.jpg")
    left.write_bytes(b"half")
    assert main([str(engine), str(tmp_path / "in"), "-o", str(tmp_path / "results"), "--overlays", "all"]) == 0
    assert [path.name for path in overlays.iterdir()] == [f"{'x' * 250}.jpg"]


def test_hidden_files_and_own_results_are_no_pictures(
    engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "a.png", picture(250, size=(32, 64)))
    (tmp_path / "._a.png").write_bytes(b"\0\5\26\7")
    (tmp_path / "Thumbs.db").write_bytes(b"\xd0\xcf")
    for _ in range(2):
        assert main([str(engine), str(tmp_path), "-o", str(tmp_path), "--overlays", "all"]) in (0, 1)
    assert [row["path"] for row in rows(tmp_path)] == ["a.png"]
    assert "cannot be read" not in capsys.readouterr().err


def test_input_that_is_neither_file_nor_folder_is_said(
    engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    for name in ("pipe.png", "gone.png"):
        assert main([str(engine), str(tmp_path / name), "-o", str(tmp_path / "results")]) == 1
        assert f"{name} is neither a file nor a folder" in capsys.readouterr().err
    assert main([str(engine), "x" * 5000, "-o", str(tmp_path / "results")]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_camera_writes_odd_names_safely(engine: Path, odd: Path, tmp_path: Path) -> None:
    outputs = (tmp_path / "events.jsonl", tmp_path / "t.csv")
    assert camera(["--engine", str(engine), "--source", str(odd), *(f"--output={path}" for path in outputs)]) == 0
    expected = {os.fsdecode(bytes(odd) + b"/" + name) for name in NAMES}
    lines = [json.loads(line) for line in outputs[0].read_bytes().decode().splitlines()]
    assert {unescaped(line["source"]) for line in lines} == expected
    assert len(lines) == len(NAMES)
    assert all(line["source"].isprintable() for line in lines)
    with outputs[1].open(newline="", encoding="utf-8") as file:
        assert {from_cell(row["source"]) for row in csv.DictReader(file)} == expected
    assert len(outputs[1].read_bytes().splitlines()) == 1 + len(NAMES)


def test_video_that_opencv_cannot_name_is_refused(
    engine: Path, odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would end the whole program without a word."""
    video = tmp_path / os.fsdecode(b"gr\xfc.avi")
    video.write_bytes(b"RIFF")
    assert camera(["--engine", str(engine), "--source", str(video)]) == 1
    assert "has a name that is not UTF-8" in capsys.readouterr().err
    assert camera(["--engine", str(engine), "--source", str(odd), f"--output={video}"]) == 1
    assert "has a name that is not UTF-8" in capsys.readouterr().err


def test_overlay_has_the_name_of_its_picture() -> None:
    names = ["x.jpg", "a/x.png", "b/x.BMP", "a/y.1.tif", "bare"]
    assert list(overlay_names(names).values()) == ["x.jpg", "a/x.jpg", "b/x.jpg", "a/y.1.jpg", "bare.jpg"]


@pytest.mark.parametrize(
    "names",
    [
        ["a.png", "a.bmp"],
        ["a.png", "A.bmp"],
        ["a.png", "a.bmp", "a.png.bmp", "a.png.bmp.tif"],
        ["a.png", "a"],
        ["a.jpg", "a.jpg.png", "a.jpg.jpg"],
        ["x" * 255, "x" * 251 + ".png", "x" * 250 + "y.png", "x" * 251 + ".bmp"],
    ],
)
def test_no_overlay_takes_the_name_of_another(names: list[str]) -> None:
    for folder in ("", "a/"):
        found = list(overlay_names([folder + name for name in names]).values())
        assert len({name.casefold() for name in found}) == len(names)
        assert all(len(Path(name).name) <= 255 for name in found)


def test_pictures_of_one_name_have_an_overlay_each(engine: Path, tmp_path: Path) -> None:
    pictures, results = tmp_path / "in", tmp_path / "results"
    overlays = results / "overlays"
    arguments = [str(engine), str(pictures), "-o", str(results), "--overlays", "all"]
    write_image(pictures / "b.png", picture(90, size=(32, 64)))
    write_image(pictures / "a.png", picture(250, size=(32, 64)))
    write_image(pictures / "a.bmp", picture(20, size=(32, 64)))
    assert main(arguments) == 0
    assert sorted(path.name for path in overlays.iterdir()) == ["a.bmp.jpg", "a.png.jpg", "b.jpg"]
    # A picture that is gone keeps its overlay when another of its name comes.
    before = (overlays / "b.jpg").read_bytes()
    (pictures / "b.png").unlink()
    write_image(pictures / "b.tif", picture(250, size=(32, 64)))
    assert main(arguments) == 0
    assert (overlays / "b.jpg").read_bytes() == before
    assert (overlays / "b.tif.jpg").is_file()
