from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from runtime.anomaly import Anomaly, Latency
from runtime.area import Area
from runtime.inspection import Inspection
from runtime.part import VERDICTS
from runtime.sinks import FrameSink, SinkContext, open_sink
from runtime.sources.files import PictureFolder
from runtime.sources.shape import Shaped, Shaper, SourceOptions
from stlm_edge.errors import OutputError
from stlm_edge.folders import pictures_below
from stlm_edge.imaging import Image, read_image

from .conftest import ENGINE, NOISE, inspection, never_drawn, part


def kept_by(folder: Path, query: str = "", *, has_parts: bool = False, camera: str | None = None) -> FrameSink:
    context = SinkContext(engine_sha256=ENGINE, has_parts=has_parts, camera=camera)
    return open_sink(f"{folder}?what=raw{query}", context=context)


def told(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def picture(seed: int, *, size: tuple[int, ...] = (96, 192, 3)) -> Image:
    """Of blocks, so that no two are near to each other."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, *size[2:]), np.uint8)
    return np.asarray(cv2.resize(blocks, size[1::-1], interpolation=cv2.INTER_NEAREST), np.uint8)


def seen(index: int, *, file: bytes | None = None, **how: Any) -> Inspection:
    """A frame unlike others, which nobody may draw."""
    made = inspection(index, image=how.pop("image", picture(index)), picture=never_drawn, **how)
    return dataclasses.replace(made, frame=dataclasses.replace(made.frame, file=file))


@pytest.mark.parametrize("size", [(96, 192, 3), (96, 192)], ids=["colour", "grey"])
def test_frame_is_kept_without_loss_with_what_was_said_of_it(tmp_path: Path, size: tuple[int, ...]) -> None:
    image = picture(1, size=size)
    with kept_by(tmp_path, camera="left\n<b>") as sink:
        sink.write(dataclasses.replace(seen(17, image=image, label="scratch"), recipe="bolt"))
    (found,) = told(tmp_path)
    assert {key: found[key] for key in ("format", "size", "kept_as", "camera", "recipe", "part", "left_out")} == {
        "format": 1,
        "size": [96, 192],
        "kept_as": "reject",
        "camera": r"left\x0a<b>",
        "recipe": "bolt",
        "part": None,
        "left_out": {"near": 0, "every": 0},
    }
    verdict = found["verdict"]
    assert (verdict["frame"], verdict["score"], verdict["threshold"]) == (17, 0.75, 0.5)
    assert (verdict["frame_size"], verdict["engine_sha256"]) == ([96, 192], ENGINE)
    pixels = cv2.imread(str(tmp_path / found["picture"]), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(pixels, image)
    assert [path.name for path in pictures_below(tmp_path)] == [found["picture"]]  # the map is taken for none


def test_map_has_the_scale_of_the_score_and_nothing_outside_of_the_area(tmp_path: Path) -> None:
    fine = np.linspace(0.1, 0.9, 600 * 1200, dtype=np.float32).reshape(600, 1200)
    mask = np.zeros((96, 192), np.uint8)
    mask[:, 96:] = 1
    anomaly = Anomaly(0.9, True, fine, (96, 192), Latency(0, 0, 0, 0, 0), 0.5, area=Area(mask, "area.json"))
    with kept_by(tmp_path) as sink:
        sink.write(dataclasses.replace(seen(0), anomaly=anomaly))
    (found,) = told(tmp_path)
    written = cv2.imread(str(tmp_path / found["map"]["file"]), cv2.IMREAD_UNCHANGED)
    assert found["map"]["size"] == list(written.shape) == [256, 512]
    low, high = found["map"]["low"], found["map"]["high"]
    scores = low + (high - low) * written / 255
    assert scores[:, :256].max() == 0
    expected = cv2.resize(fine, (512, 256))[:, 256:]
    assert np.abs(scores[:, 256:] - expected).max() < 0.003


def test_words_are_verdicts_of_frames_where_there_are_no_parts(tmp_path: Path) -> None:
    frames = [seen(0, score=0.2), seen(1), seen(2, score=0.4), seen(3, fault="frozen")]
    assert frames[2].anomaly is not None
    frames[2] = dataclasses.replace(frames[2], anomaly=dataclasses.replace(frames[2].anomaly, unclear_from=0.3))
    for word in ("all", "anomalies", "good", "unclear,fault"):
        with kept_by(tmp_path / word, f"&only={word}") as sink:
            for frame in frames:
                sink.write(frame)
    found = {folder.name: [each["kept_as"] for each in told(folder)] for folder in tmp_path.iterdir()}
    assert found == {
        "all": ["good", "reject", "unclear", "fault"],
        "anomalies": ["reject", "unclear", "fault"],
        "good": ["good"],
        "unclear,fault": ["unclear", "fault"],
    }
    (of_fault, of_unclear) = sorted(told(tmp_path / "unclear,fault"), key=lambda each: each["kept_as"])
    assert (of_fault["map"], of_fault["verdict"]["score"]) == (None, None)
    assert of_unclear["verdict"]["unclear_from"] == 0.3


def test_worst_frame_of_a_part_is_kept_with_the_result(tmp_path: Path) -> None:
    with kept_by(tmp_path, "&only=reject,missed", has_parts=True) as sink:
        assert not sink.takes_frames  # or a picture that takes long to write would have others dropped
        sink.write(seen(1))
        for number, verdict in enumerate(VERDICTS):
            sink.write_part(part(number, verdict, worst=seen(10 + number), part_id=f"A-{number}"))
        sink.write_part(part(9, "missed"))  # of which nothing was judged
        with pytest.raises(OutputError, match="too slow for the line"):
            sink.write_part(part(worst=seen(0).without_picture()))
    found = {each["kept_as"]: (each["verdict"]["frame"], each["part"]["part_id"]) for each in told(tmp_path)}
    assert found == {"reject": (12, "A-2"), "missed": (13, "A-3")}


def test_share_of_good_ones_is_drawn_besides(tmp_path: Path) -> None:
    with kept_by(tmp_path, "&only=reject&good=30%&near=0") as sink:
        for index in range(40):
            sink.write(seen(index, score=0.2, image=picture(0, size=(8, 8))))
        sink.write(seen(40))
    kept = [each["kept_as"] for each in told(tmp_path)]
    assert kept.count("reject") == 1
    assert 1 <= kept.count("good") <= 30  # 12 are expected; outside of this once in 10⁹ times


def test_no_more_often_than_every_so_many_seconds_of_each_verdict(tmp_path: Path) -> None:
    now_s = time.monotonic()
    with kept_by(tmp_path, "&every=2.5") as sink:
        for index, (after_s, score) in enumerate([(0, 0.8), (1, 0.2), (2, 0.8), (2.4, 0.8), (2.6, 0.8), (3, 0.2)]):
            sink.write(seen(index, score=score, timestamp_s=now_s + after_s))
    assert [each["verdict"]["frame"] for each in told(tmp_path)] == [0, 1, 4]
    assert told(tmp_path)[-1]["left_out"] == {"near": 0, "every": 2}


def test_near_duplicate_is_left_out_and_counted_and_a_small_defect_is_not(tmp_path: Path) -> None:
    still = picture(0, size=(480, 960, 3))
    noise = np.random.default_rng(1).integers(-5, 6, still.shape)
    again = np.clip(still + noise + 3, 0, 255).astype(np.uint8)  # the light is a little brighter
    defect = again.copy()
    defect[150:156, 300:310] = 255 - defect[150:156, 300:310]
    frames = [still, again, defect, again]
    now_s = time.monotonic()
    with kept_by(tmp_path) as sink:
        for index, image in enumerate(frames):
            sink.write(seen(index, image=image, timestamp_s=now_s + index))
        sink.write(seen(4, image=still, timestamp_s=now_s + 700))
        assert sink.state == "3 frames kept, 2 left out as near duplicates"
    kept = {each["verdict"]["frame"]: each["left_out"]["near"] for each in told(tmp_path)}
    assert kept == {0: 0, 2: 1, 4: 1}


def test_own_file_of_a_source_is_kept_byte_by_byte(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    cv2.imwrite(str(pictures / "a.jpg"), picture(1))
    cv2.imwrite(str(pictures / "b.png"), picture(2).astype(np.uint16) * 251)
    cv2.imwrite(str(pictures / "c.BMP"), picture(3))
    with PictureFolder(pictures) as source, kept_by(tmp_path / "kept") as sink:
        while (frame := source.read()) is not None:
            made = seen(frame.index, image=frame.image)
            sink.write(dataclasses.replace(made, frame=frame))
    files = [tmp_path / "kept" / each["picture"] for each in told(tmp_path / "kept")]
    assert [file.suffix for file in files] == [".jpg", ".png", ".bmp"]
    assert [file.read_bytes() for file in files] == [path.read_bytes() for path in sorted(pictures.iterdir())]


def test_frame_that_was_turned_is_kept_as_it_was_inspected(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), picture(1))
    shaper = Shaper(SourceOptions(rotate=90), is_camera=False)
    with Shaped(PictureFolder(tmp_path / "a.jpg"), shaper) as source, kept_by(tmp_path / "kept") as sink:
        frame = source.read()
        assert frame is not None
        sink.write(dataclasses.replace(seen(0, image=frame.image), frame=frame))
    (found,) = told(tmp_path / "kept")
    np.testing.assert_array_equal(read_image(tmp_path / "kept" / found["picture"]), frame.image)


def test_oldest_go_with_all_that_belongs_to_them(tmp_path: Path) -> None:
    old = "20200101T000000.000000Z-000001-00000000"
    (tmp_path / f"{old}.png").write_bytes(bytes(10))  # of a run that was killed before it wrote the rest
    (tmp_path / f".{old}.json.tmp.json").write_bytes(bytes(10))
    others = {"notes.txt", "20200101T000000.000000Z-000001.png"}
    for name in others:
        (tmp_path / name).write_bytes(bytes(2_000_000))
    for _ in range(2):  # by what is told at the start, and while it runs
        with kept_by(tmp_path, "&limit=2MB&near=0") as sink:
            for index in range(3):
                sink.write(seen(index, image=NOISE[:480, :640]))
    left = {path.name for path in tmp_path.iterdir()} - others
    assert [each["verdict"]["frame"] for each in told(tmp_path)] == [1, 2]
    assert left == {name for each in told(tmp_path) for name in _of(each)}


def _of(found: dict[str, Any]) -> list[str]:
    stem = Path(found["picture"]).stem
    return [found["picture"], f"{stem}.json", found["map"]["file"]]


def test_nothing_is_left_of_a_frame_that_the_disk_has_no_room_for(small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(1 << 10)
    with kept_by(folder) as sink:
        with pytest.raises(OutputError, match="No space left"):
            sink.write(seen(0, image=NOISE))
        assert list(folder.iterdir()) == []
        sink.write(seen(0))  # the one that could not be written is no duplicate of itself
    assert len(told(folder)) == 1


def test_folder_that_is_deleted_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with kept_by(folder) as sink:
        for index in range(2):
            sink.write(seen(index))
            if index == 0:
                for path in folder.iterdir():
                    path.unlink()
                folder.rmdir()
    assert len(told(folder)) == 1


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("&only=rejects", "only is 'rejects', expected one or several of good, unclear, reject, missed, fault"),
        ("&good=1%&only=all", "a share of the good ones and all of them"),
        ("&good=0%", "good is '0%', expected a share, as in 1% or 0.5%"),
        ("&every=nan", "every is 'nan', expected a number of seconds"),
        ("&near=-1", "near is '-1', expected a distance"),
        ("&near=300", "near is '300', expected a distance in grey levels from 0 to 255"),
    ],
)
def test_option_that_does_not_fit_says_which_do(tmp_path: Path, query: str, message: str) -> None:
    with pytest.raises(OutputError, match=message):
        kept_by(tmp_path / "kept", query)
    assert list(tmp_path.iterdir()) == []
