"""What is wrong with the data is one line and exit code 1, from each command that reads data."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stlm_edge.imaging import write_image
from tests.settings import TWO_STREAMS
from train.__main__ import main

QUICK = ["--preset", TWO_STREAMS, "--image-size", "64", "--epochs", "1", "--batch-size", "2"]

Spoil = Callable[[Path], None]


@pytest.fixture
def data(plate, tmp_path) -> Path:
    """A copy of `plate` to spoil."""
    return Path(shutil.copytree(plate / "plate", tmp_path / "data" / "plate"))


def run(command: str, data: Path, category: str | None, *, checkpoint: Path, out: Path) -> int:
    where = ["--data", str(data)] + (["--category", category] if category else [])
    arguments = {
        "fit": ["fit", *where, "-o", str(out / "run"), *QUICK],
        "preview": ["preview", *where, "-o", str(out / "preview.png"), *QUICK[:4]],
        "evaluate": ["evaluate", str(checkpoint), *where, "-o", str(out / "evaluation")],
    }
    return main(arguments[command])


def the_error(capsys) -> str:
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in captured.err
    return lines[0]


def no_training_pictures(data: Path) -> None:
    shutil.rmtree(data / "train" / "good")


def misnamed_mask(data: Path) -> None:
    (data / "ground_truth" / "chip" / "000_mask.png").rename(data / "ground_truth" / "chip" / "mask of 000.png")


def without_test(data: Path) -> None:
    """As in MVTec AD 2, whose pictures to test are in other folders."""
    (data / "test").rename(data / "test_public")


def spelt_with_capitals(data: Path) -> None:
    (data / "train").rename(data / "Train")


def only_a_file(data: Path) -> None:
    shutil.rmtree(data)
    data.write_text("not a folder")


def empty(data: Path) -> None:
    shutil.rmtree(data)
    data.mkdir()


def visa_without_split(data: Path) -> None:
    empty(data)
    write_image(data / "Data" / "Images" / "Normal" / "0000.png", np.zeros((8, 8, 3), np.uint8))


def unreadable_split(data: Path) -> None:
    empty(data)
    (data.parent / "split_csv").mkdir()
    (data.parent / "split_csv" / "1cls.csv").write_text("picture,mask\n")


@pytest.mark.parametrize(
    ("command", "spoil", "words"),
    [
        ("fit", no_training_pictures, "no good pictures to train on"),
        ("fit", spelt_with_capitals, "MVTec AD's is spelt train/good"),
        ("fit", only_a_file, "has no category 'plate'"),
        ("fit", empty, "neither pictures (.bmp, .dib, "),
        ("fit", visa_without_split, "looks like a category of VisA"),
        ("fit", unreadable_split, "lacks the columns object, split, label, image"),
        ("preview", no_training_pictures, "no good pictures to train on"),
        ("preview", empty, "neither pictures (.bmp, .dib, "),
        ("evaluate", misnamed_mask, "chip/000.png has no mask, expected"),
        ("evaluate", without_test, "has no test pictures, found the folders ground_truth, test_public, train"),
        ("evaluate", empty, "neither pictures (.bmp, .dib, "),
    ],
)
def test_wrong_layout_is_one_line(command: str, spoil: Spoil, words: str, data, checkpoint, tmp_path, capsys) -> None:
    spoil(data)
    assert run(command, data.parent, "plate", checkpoint=checkpoint, out=tmp_path / "out") == 1
    assert words in the_error(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["fit", "preview", "evaluate"])
def test_data_set_without_its_category_is_one_line(command, data, checkpoint, tmp_path, capsys) -> None:
    assert run(command, data.parent, None, checkpoint=checkpoint, out=tmp_path / "out") == 1
    assert "found the folders plate" in the_error(capsys)


@pytest.mark.parametrize(
    ("command", "folder", "content"),
    [
        ("fit", "train/good", b""),
        ("preview", "train/good", b"no picture"),
        ("evaluate", "test/chip", b"\x89PNG\r\n\x1a\n cut off"),
    ],
)
def test_unreadable_picture_is_one_line(command, folder, content, data, checkpoint, tmp_path, capsys) -> None:
    (data / folder / "000.png").write_bytes(content)
    assert run(command, data.parent, "plate", checkpoint=checkpoint, out=tmp_path / "out") == 1
    assert "000.png is empty, truncated, damaged or not a picture" in the_error(capsys)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.zeros((10, 96), np.uint8), "is 10 x 96 (height x width), its picture is 96 x 96"),
        (np.eye(96, dtype=np.uint8), "values up to 1 and none above half of 255"),
        (np.zeros((96, 96), np.uint8), "000_mask.png is black, but"),
        (np.full((96, 96), 255, np.uint8), "so it looks inverted"),
    ],
    ids=["size", "scale", "black", "white"],
)
def test_mask_that_does_not_fit_is_one_line(mask, words, data, checkpoint, tmp_path, capsys) -> None:
    write_image(data / "ground_truth" / "chip" / "000_mask.png", mask)
    assert run("evaluate", data.parent, "plate", checkpoint=checkpoint, out=tmp_path / "out") == 1
    error = the_error(capsys)
    assert words in error
    assert "chip/000_mask.png" in error


def test_plain_folder_cannot_be_evaluated(data, checkpoint, tmp_path, capsys) -> None:
    assert run("evaluate", data / "train" / "good", None, checkpoint=checkpoint, out=tmp_path / "out") == 1
    assert "no test pictures" in the_error(capsys)


@pytest.mark.heavy
def test_data_sets_of_other_layouts_are_evaluated(data, checkpoint, tmp_path, capsys) -> None:
    """VisA's masks of class numbers and DAGM's ellipses count as MVTec AD's do."""
    visa, dagm = tmp_path / "visa", tmp_path / "dagm"
    good, defect = data / "test" / "good" / "000.png", data / "test" / "chip" / "000.png"
    truth = np.zeros((96, 96), np.uint8)
    truth[40:60, 40:60] = 1
    rows = ["object,split,label,image,mask", "part,train,normal,part/good.png,", "part,test,normal,part/good.png,"]
    (visa / "part").mkdir(parents=True)
    shutil.copy(good, visa / "part" / "good.png")
    shutil.copy(defect, visa / "part" / "defect.png")
    write_image(visa / "part" / "mask.png", truth * np.uint8(2))
    (visa / "split_csv").mkdir()
    (visa / "split_csv" / "1cls.csv").write_text("\n".join([*rows, "part,test,anomaly,part/defect.png,part/mask.png"]))
    for half in ("Train", "Test"):
        (dagm / "Class1" / half / "Label").mkdir(parents=True)
        for index in range(16):
            shutil.copy(good, dagm / "Class1" / half / f"{half}{index}.PNG")
        shutil.copy(defect, dagm / "Class1" / half / "99.PNG")
        write_image(dagm / "Class1" / half / "Label" / "99_label.PNG", truth * np.uint8(255))
    for folder, category in ((visa, "part"), (dagm, "Class1")):
        assert run("evaluate", folder, category, checkpoint=checkpoint, out=tmp_path / category) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("anomaly "))
        assert "-" not in line.split()  # every metric is defined: the mask has both kinds of pixels
