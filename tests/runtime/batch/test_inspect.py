"""`stlm inspect`: scores, overlays, and runs that are stopped, killed and gone on with."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from runtime.batch.table import PictureRow, RunSettings, ScoreTable
from runtime.detector import Detector
from runtime.inspect import main
from stlm_edge.imaging import read_image, write_image

from ..conftest import INPUT_SIZE, SPEC, brightness_graph, picture, write_engine

MANY = 300


def inspect(engine: Path, *arguments: str | Path) -> int:
    return main([str(engine), *map(str, arguments)])


def rows(results: Path) -> list[dict[str, str]]:
    with (results / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def timeless(results: Path) -> list[dict[str, str]]:
    """The rows without what differs from run to run."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows(results)]


def overlays(results: Path) -> list[str]:
    folder = results / "overlays"
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def pixels(results: Path) -> dict[str, bytes]:
    return {name: (results / "overlays" / name).read_bytes() for name in overlays(results)}


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Many pictures of different brightness, one of which cannot be read."""
    folder = tmp_path / "many"
    for index in range(MANY):
        write_image(folder / f"{index:03d}.png", picture(index % 250, size=(32, 64)))
    (folder / "007.png").write_bytes(b"")
    return folder


def batch_engine(path: Path, *, max_batch: int, frame_size: tuple[int, int] | None = None) -> Path:
    """The brightness engine for several pictures at once."""
    spec = dataclasses.replace(SPEC, max_batch=max_batch, frame_size=frame_size)
    model = brightness_graph()
    if max_batch == 1:
        return write_engine(path, model=model, spec=spec)
    for constant in model.graph.initializer:
        if constant.name in ("planar", "map_shape"):
            shape = numpy_helper.to_array(constant).copy()
            shape[0] = -1
            constant.CopyFrom(numpy_helper.from_array(shape, constant.name))
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.shape.dim[0].ClearField("dim_value")
        port.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.checker.check_model(model)
    return write_engine(path, model=model, spec=spec)


def test_labelled_folder_becomes_a_table_and_overlays(
    engine: Path, mvtec_test_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    assert inspect(engine, mvtec_test_folder, "-o", results) == 1
    said = capfd.readouterr()
    found = rows(results)
    assert [(row["path"], row["label"], row["anomalous"], row["regions"]) for row in found] == [
        ("good/000.png", "good", "False", "0"),
        ("good/001.png", "good", "False", "0"),
        ("scratch/000.png", "scratch", "True", "1"),
        ("scratch/001.png", "scratch", "False", "0"),
        ("scratch/002.png", "scratch", "", ""),
    ]
    with Detector.open(engine) as detector:
        for row in found[:-1]:
            score = detector.inspect(read_image(mvtec_test_folder / row["path"])).score
            assert np.float32(row["score"]) == np.float32(score)
            assert float(row["threshold"]) == detector.threshold.value
            assert float(row["seconds"]) >= 0
    assert (found[-1]["score"], found[-1]["seconds"]) == ("", "")
    assert "is empty, truncated, damaged or not a picture" in found[-1]["error"]
    assert overlays(results) == ["scratch/000.jpg"]
    assert "pictures inspected  4 in " in said.out
    assert "anomalous           1\n" in said.out
    assert "could not be read   1\n" in said.out
    assert said.err.splitlines()[-1].startswith("error: 1 of 5 pictures could not be read")


@pytest.mark.parametrize(("which", "number"), [("all", 4), ("anomalies", 1), ("none", 0)])
def test_overlays_are_of_those_pictures_that_were_asked_for(
    engine: Path, mvtec_test_folder: Path, tmp_path: Path, which: str, number: int
) -> None:
    inspect(engine, mvtec_test_folder, "-o", tmp_path / "results", "--overlays", which)
    assert len(overlays(tmp_path / "results")) == number


@pytest.mark.parametrize("threshold", ["45", "-1", "1e308"])
def test_threshold_that_no_score_or_every_score_reaches_is_refused(
    engine: Path, mvtec_test_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], threshold: str
) -> None:
    assert inspect(engine, mvtec_test_folder, "-o", tmp_path / "results", "--threshold", threshold) == 1
    assert "where scores lie between 0 and 4" in capfd.readouterr().err
    assert not (tmp_path / "results" / "scores.csv").exists()


def test_threshold_by_hand_moves_the_verdicts(engine: Path, mvtec_test_folder: Path, tmp_path: Path) -> None:
    inspect(engine, mvtec_test_folder / "good", "-o", tmp_path, "--threshold", "0.25")
    assert [(row["threshold"], row["anomalous"]) for row in rows(tmp_path)] == [("0.25", "False"), ("0.25", "True")]


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_backend_is_the_one_asked_for(
    engine: Path, mvtec_test_folder: Path, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert inspect(engine, mvtec_test_folder / "good", "-o", tmp_path, "--backend", name) == 0
    assert f"runs on {name}" in capfd.readouterr().err


@pytest.mark.heavy
@pytest.mark.parametrize("max_batch", [2, 4])
def test_batches_give_the_rows_of_single_pictures(engine: Path, many: Path, tmp_path: Path, max_batch: int) -> None:
    together = batch_engine(tmp_path / "batch.onnx", max_batch=max_batch)
    assert inspect(engine, many, "-o", tmp_path / "single") == 1
    assert inspect(together, many, "-o", tmp_path / "batch") == 1
    assert timeless(tmp_path / "batch") == timeless(tmp_path / "single")
    assert len(rows(tmp_path / "batch")) == MANY


def test_second_run_only_does_what_is_left(
    engine: Path, mvtec_test_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    inspect(engine, mvtec_test_folder, "-o", results)
    shutil.copy(mvtec_test_folder / "good/000.png", mvtec_test_folder / "good/0001.png")
    whole = mvtec_test_folder / "scratch/002.png"
    write_image(whole, picture(60, spot=240))
    capsys.readouterr()
    assert inspect(engine, mvtec_test_folder, "-o", results) == 0
    said = capsys.readouterr().out
    assert "pictures inspected  2 in" in said
    assert "done before         4" in said
    at_once = tmp_path / "at_once"
    assert inspect(engine, mvtec_test_folder, "-o", at_once) == 0
    assert timeless(results) == timeless(at_once)
    assert overlays(results) == overlays(at_once)
    assert inspect(engine, mvtec_test_folder, "-o", results) == 0
    assert "pictures inspected  0 in" in capsys.readouterr().out


def test_row_of_a_picture_that_was_removed_stays(engine: Path, mvtec_test_folder: Path, tmp_path: Path) -> None:
    inspect(engine, mvtec_test_folder, "-o", tmp_path / "results")
    (mvtec_test_folder / "scratch/000.png").unlink()
    inspect(engine, mvtec_test_folder, "-o", tmp_path / "results")
    assert "scratch/000.png" in [row["path"] for row in rows(tmp_path / "results")]


def started(engine: Path, *arguments: str | Path, results: Path, wanted: int) -> subprocess.Popen[str]:
    """A run in a process of its own that has written so many rows and has not ended."""
    command = [sys.executable, "-m", "runtime.inspect", engine, *arguments, "-o", results]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    give_up_s = time.monotonic() + 60
    while not (results / "scores.csv").exists() or (results / "scores.csv").read_bytes().count(b"\n") < wanted + 1:
        assert time.monotonic() < give_up_s and process.poll() is None
        time.sleep(0.001)
    return process


@pytest.mark.heavy
def test_killed_run_goes_on_to_the_table_of_a_whole_one(engine: Path, many: Path, tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for wanted in (20, 120):
        with started(engine, many, "--overlays", "all", results=killed, wanted=wanted) as process:
            process.kill()
        assert process.returncode == -signal.SIGKILL
        written = (killed / "scores.csv").read_bytes().count(b"\n")
        assert wanted < written < MANY
    assert inspect(engine, many, "-o", killed, "--overlays", "all") == 1
    assert inspect(engine, many, "-o", whole, "--overlays", "all") == 1
    assert timeless(killed) == timeless(whole)
    assert [row["path"] for row in rows(killed)] == sorted(path.name for path in many.iterdir())
    assert pixels(killed) == pixels(whole)
    assert len(overlays(killed)) == MANY - 1


def test_row_is_in_the_file_as_soon_as_it_is_added(tmp_path: Path) -> None:
    settings = RunSettings(engine_sha256="0", threshold=0.5, root="/parts", area=None, tile=None, overlays="all")
    with ScoreTable(tmp_path, settings, restart=False) as table:
        table.add(PictureRow("a.png", 0.25, 0.5, False, 0, None, 0.01))
        assert [row["path"] for row in rows(tmp_path)] == ["a.png"]


@pytest.mark.heavy
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_run_finishes_what_is_in_hand_and_says_how_to_go_on(
    engine: Path, many: Path, tmp_path: Path, number: signal.Signals
) -> None:
    results = tmp_path / "results"
    with started(engine, many, "--overlays", "all", results=results, wanted=20) as process:
        process.send_signal(number)
        said, complained = process.communicate(timeout=30)
    assert process.returncode == 130
    left = MANY - len(rows(results))
    assert left > 0
    assert f"stopped with {left} pictures left; go on with the same command" in complained
    assert "Traceback" not in complained
    assert f"pictures inspected  {MANY - left - 1} in " in said
    # No overlay without its row, and no row without its overlay.
    assert overlays(results) == [
        Path(row["path"]).with_suffix(".jpg").name for row in rows(results) if not row["error"]
    ]
    assert inspect(engine, many, "-o", results, "--overlays", "all") == 1
    assert len(rows(results)) == MANY


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-9],
        lambda text: text[: text.rindex("scratch/001")] + '"scratch/\n',
        lambda text: text[: text.rindex("scratch/001")] + "\0" * 40,
        lambda text: text[:12],
    ],
    ids=["torn row", "torn at a line break inside of a name", "zeros of a power cut", "torn header"],
)
def test_torn_end_of_the_table_is_done_again(
    engine: Path, mvtec_test_folder: Path, tmp_path: Path, damage: object
) -> None:
    (mvtec_test_folder / "scratch/002.png").unlink()
    assert inspect(engine, mvtec_test_folder, "-o", tmp_path / "results") == 0
    whole = timeless(tmp_path / "results")
    table = tmp_path / "results/scores.csv"
    table.write_text(damage(table.read_text()))  # type: ignore[operator]
    assert inspect(engine, mvtec_test_folder, "-o", tmp_path / "results") == 0
    assert timeless(tmp_path / "results") == whole


def test_name_with_a_comma_a_quote_and_a_line_break(engine: Path, tmp_path: Path) -> None:
    name = 'left, "new"\nside.png'
    write_image(tmp_path / "parts" / name, picture(60))
    for _ in range(2):
        assert inspect(engine, tmp_path / "parts", "-o", tmp_path / "results") == 0
        assert [row["path"] for row in rows(tmp_path / "results")] == ['left, "new"\\x0aside.png']


def test_results_of_another_run_are_not_mixed(
    engine: Path, mvtec_test_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    good, results = mvtec_test_folder / "good", tmp_path / "results"
    other = write_engine(tmp_path / "other.onnx", model=brightness_graph(factor=0.9))
    assert inspect(engine, good, "-o", results) == 0
    before = (results / "scores.csv").read_bytes()
    for arguments, message in (
        ((other, good), "is of an earlier run with engine_sha256 "),
        ((engine, good, "--threshold", "0.3"), "is of an earlier run with threshold 0.5, this one has 0.3; "),
        ((engine, good, "--overlays", "all"), "is of an earlier run with overlays anomalies, this one has all; "),
        ((engine, mvtec_test_folder / "scratch"), "is of an earlier run with root "),
        ((engine, good, "--tile", "64x128"), "is of an earlier run with tile None, this one has 64 x 128; "),
        ((engine, good, "--ignore", left_half(tmp_path)), "is of an earlier run with area None, this one has "),
    ):
        assert inspect(*arguments, "-o", results) == 1
        error = capfd.readouterr().err.splitlines()[-1]
        assert message in error
        assert error.endswith("give another folder, or --restart to remove what is there")
    assert (results / "scores.csv").read_bytes() == before


def left_half(folder: Path) -> Path:
    """A mask for `picture()` that leaves its left half out, where the spot is."""
    mask = np.zeros((96, 192, 3), np.uint8)
    mask[:, :96] = 255
    write_image(folder / "left.png", mask)
    return folder / "left.png"


def test_ignored_area_hides_what_is_in_it(engine: Path, mvtec_test_folder: Path, tmp_path: Path) -> None:
    scratch = mvtec_test_folder / "scratch/000.png"
    assert inspect(engine, scratch, "-o", tmp_path / "all") == 0
    assert inspect(engine, scratch, "-o", tmp_path / "right", "--ignore", left_half(tmp_path)) == 0
    assert [rows(tmp_path / name)[0]["anomalous"] for name in ("all", "right")] == ["True", "False"]


def test_region_of_interest_is_inspected_alone(engine: Path, mvtec_test_folder: Path, tmp_path: Path) -> None:
    shape = {"label": "part", "shape_type": "rectangle", "points": [[96, 0], [192, 96]]}
    (tmp_path / "right.json").write_text(json.dumps({"imageHeight": 96, "imageWidth": 192, "shapes": [shape]}))
    write_image(mvtec_test_folder / "scratch/000_wide.png", picture(60, size=(96, 200)))
    results = tmp_path / "results"
    assert inspect(engine, mvtec_test_folder / "scratch", "-o", results, "--roi", tmp_path / "right.json") == 1
    found = {row["path"]: row for row in rows(results)}
    assert found["000.png"]["anomalous"] == "False"
    assert "drawn on one of 96 x 192" in found["000_wide.png"]["error"]


def test_tiles_show_what_a_whole_picture_loses(engine: Path, tmp_path: Path) -> None:
    large = picture(60, size=(512, 1024))
    large[100:112, 700:712] = 255
    write_image(tmp_path / "large.png", large)
    for name, options in (("whole", []), ("tiles", ["--tile", "64x128"])):
        assert inspect(engine, tmp_path / "large.png", "-o", tmp_path / name, "--overlays", "all", *options) == 0
    whole, tiles = (float(rows(tmp_path / name)[0]["score"]) for name in ("whole", "tiles"))
    assert tiles > whole + 0.1
    assert overlays(tmp_path / "tiles") == ["large.jpg"]


def test_restart_removes_the_earlier_run_with_its_overlays(
    engine: Path, mvtec_test_folder: Path, tmp_path: Path
) -> None:
    inspect(engine, mvtec_test_folder, "-o", tmp_path / "results", "--overlays", "all")
    (tmp_path / "results/own.txt").touch()
    good = mvtec_test_folder / "good"
    assert inspect(engine, good, "-o", tmp_path / "results", "--threshold", "0.2", "--restart") == 0
    assert [row["path"] for row in rows(tmp_path / "results")] == ["000.png", "001.png"]
    assert overlays(tmp_path / "results") == ["000.jpg", "001.jpg"]
    assert (tmp_path / "results/own.txt").exists()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"scores.csv": "a,b\n1,2\n"}, "has no run.json beside it"),
        ({"scores.csv": "", "run.json": "{"}, "run.json is not JSON"),
        ({"scores.csv": "", "run.json": "[]"}, "run.json holds a list"),
        ({"scores.csv": "", "run.json": "{}"}, "is of an earlier run with engine_sha256"),
    ],
)
def test_table_of_another_program_is_left_alone(
    engine: Path,
    mvtec_test_folder: Path,
    tmp_path: Path,
    files: dict[str, str],
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert inspect(engine, mvtec_test_folder / "good", "-o", tmp_path) == 1
    assert message in capfd.readouterr().err.splitlines()[-1]
    assert (tmp_path / "scores.csv").read_text() == files["scores.csv"]


def test_changed_rows_are_noticed(
    engine: Path, mvtec_test_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    good, results = mvtec_test_folder / "good", tmp_path / "results"
    inspect(engine, good, "-o", results)
    table = results / "scores.csv"
    table.write_text(table.read_text().replace("path,score", "picture,score"))
    assert inspect(engine, good, "-o", results) == 1
    assert "is not as it was written, expected path, score" in capfd.readouterr().err.splitlines()[-1]


def test_output_that_cannot_be_written_is_exit_code_1(
    engine: Path, mvtec_test_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert inspect(engine, mvtec_test_folder, "-o", "/proc/results") == 1
    assert capfd.readouterr().err.splitlines()[-1].startswith("error: cannot write /proc/results")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/overlays").touch()
    assert inspect(engine, mvtec_test_folder, "-o", tmp_path / "results") == 1
    assert "error: cannot write" in capfd.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("max_batch", [1, 3])
def test_engine_for_frames_of_one_size_names_the_others(tmp_path: Path, max_batch: int) -> None:
    fixed = batch_engine(tmp_path / "fixed.onnx", max_batch=max_batch, frame_size=INPUT_SIZE)
    for index in range(8):
        write_image(tmp_path / f"parts/{index}.png", picture(60 + index, size=(96, 192) if index == 4 else INPUT_SIZE))
    (tmp_path / "parts/5.png").write_bytes(b"")
    assert inspect(fixed, tmp_path / "parts", "-o", tmp_path / "results") == 1
    found = rows(tmp_path / "results")
    assert [row["path"] for row in found if row["error"]] == ["4.png", "5.png"]
    assert "4.png: found a frame of 96 x 192" in found[4]["error"]
    scores = [float(row["score"]) for row in found if row["score"]]
    assert scores == pytest.approx([(60 + index) / 255 for index in (0, 1, 2, 3, 6, 7)], abs=1e-5)


@pytest.mark.parametrize("arguments", [[], ["parts"], ["parts", "-o", "results", "--overlays", "some"]])
def test_wrong_usage_is_exit_code_2(engine: Path, arguments: list[str]) -> None:
    assert inspect(engine, *arguments) == 2


@pytest.mark.heavy
def test_bar_is_shown_to_people_only(engine: Path, mvtec_test_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "runtime.inspect", engine, mvtec_test_folder / "good", "-o"]
    alone = subprocess.run([*command, tmp_path / "alone"], check=True, capture_output=True, text=True)
    assert "inspecting" not in alone.stdout + alone.stderr
    ours, terminal = pty.openpty()
    subprocess.run([*command, tmp_path / "watched"], check=True, stdout=subprocess.DEVNULL, stderr=terminal)
    os.close(terminal)
    seen = b""
    try:
        while block := os.read(ours, 4096):
            seen += block
    except OSError:  # how the kernel tells the end of a terminal
        pass
    os.close(ours)
    assert b"inspecting" in seen
    assert b"2/2" in seen
