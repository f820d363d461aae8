"""The part of the frame that is inspected."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.area import Area, read_area
from runtime.detector import Detector
from stlm_edge.errors import ConfigError, ImageError, StlmError
from stlm_edge.imaging import write_image

from .conftest import INPUT_SIZE, picture
from .rule_engine import TOP_K, write_rule_engine

SIZE = (96, 192)
LARGE = {"imageHeight": 10000, "imageWidth": 10000}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rule_engine(tmp_path_factory.mktemp("engine") / "rule.onnx")


def shape(label: str, kind: str, *points: tuple[float, float]) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}}


def drawing(path: Path, *shapes: dict[str, Any], size: tuple[int, int] = SIZE, **changes: Any) -> Path:
    content = {"version": "5.4.1", "imagePath": "frame.png", "imageHeight": size[0], "imageWidth": size[1]}
    path.write_text(json.dumps({**content, "shapes": shapes, **changes}))
    return path


def mask_file(path: Path, mask: np.ndarray) -> Path:
    write_image(path, np.repeat(np.asarray(mask * 255, np.uint8)[:, :, None], 3, axis=2))
    return path


def rectangle(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    inside = np.zeros(SIZE, np.uint8)
    inside[top:bottom, left:right] = 1
    return inside


def read(roi: Path | None, ignore: Path | None = None) -> Area:
    area = read_area(roi=roi, ignore=ignore)
    assert area is not None
    return area


def test_rectangle_from_either_corner_is_inspected(tmp_path: Path) -> None:
    first = drawing(tmp_path / "a.json", shape("part", "rectangle", (20, 10), (60, 50)))
    second = drawing(tmp_path / "b.json", shape("part", "rectangle", (60, 50), (20, 10)))
    corners = [(20, 10), (60, 10), (60, 50), (20, 50)]  # as other programs write the same format
    third = drawing(tmp_path / "c.json", shape("part", "rectangle", *corners))
    for path in (first, second, third):
        area = read(path)
        assert np.array_equal(area.mask, rectangle(10, 20, 50, 60))
        assert area.size == SIZE
        assert area.share == pytest.approx(40 * 40 / (96 * 192))


def test_pixel_belongs_to_a_polygon_if_its_centre_does(tmp_path: Path) -> None:
    corners = [(3.2, 1.7), (150.9, 40.1), (170.4, 90.6), (80.0, 60.5), (10.1, 95.2)]
    area = read(drawing(tmp_path / "a.json", shape("part", "polygon", *corners)))
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    inside = np.zeros(SIZE, bool)
    for (x, y), (to_x, to_y) in zip(corners, [*corners[1:], corners[0]], strict=True):
        crosses = (y > rows) != (to_y > rows)
        inside ^= crosses & (columns < x + (rows - y) * (to_x - x) / (to_y - y))
    assert np.array_equal(area.mask, inside)
    assert area.mask.sum() > 1000


def test_shapes_add_up_and_those_to_ignore_are_cut_out_in_any_order(tmp_path: Path) -> None:
    area = read(
        drawing(
            tmp_path / "a.json",
            shape("ignore", "rectangle", (30, 20), (40, 30)),
            shape("left", "rectangle", (20, 10), (60, 50)),
            shape("right", "polygon", (50, 40), (100, 40), (100, 60), (50, 60)),
        )
    )
    wanted = rectangle(10, 20, 50, 60) | rectangle(40, 50, 60, 100)
    assert np.array_equal(area.mask, wanted & (1 - rectangle(20, 30, 30, 40)))


def test_drawing_of_what_to_ignore_alone_leaves_the_rest(tmp_path: Path) -> None:
    area = read(drawing(tmp_path / "a.json", shape("ignore", "rectangle", (0, 0), (192, 30))))
    assert np.array_equal(area.mask, rectangle(30, 0, 96, 192))


@pytest.mark.parametrize("label", ["Ignore", "IGNORE", " ignore "])
def test_label_of_what_to_ignore_may_be_in_any_case(tmp_path: Path, label: str) -> None:
    area = read(drawing(tmp_path / "a.json", shape(label, "rectangle", (0, 0), (192, 30))))
    assert np.array_equal(area.mask, rectangle(30, 0, 96, 192))


def test_drawing_saved_by_a_windows_editor_is_read(tmp_path: Path) -> None:
    path = drawing(tmp_path / "a.json", shape("part", "rectangle", (20, 10), (60, 50)))
    path.write_bytes(
        b"\xef\xbb\xbf" + json.dumps(json.loads(path.read_text()), indent=2).replace("\n", "\r\n").encode()
    )
    assert np.array_equal(read(path).mask, rectangle(10, 20, 50, 60))


def test_whole_picture_may_be_drawn(tmp_path: Path) -> None:
    assert read(drawing(tmp_path / "a.json", shape("all", "rectangle", (0, 0), (192, 96)))).mask.all()


def test_white_of_a_mask_is_ignored(tmp_path: Path) -> None:
    ignore = mask_file(tmp_path / "ignore.png", rectangle(0, 0, 20, 192))
    assert np.array_equal(read(None, ignore).mask, rectangle(20, 0, 96, 192))
    roi = drawing(tmp_path / "a.json", shape("part", "rectangle", (20, 10), (60, 50)))
    assert np.array_equal(read(roi, ignore).mask, rectangle(20, 20, 50, 60))


def test_without_files_there_is_no_area() -> None:
    assert read_area(roi=None, ignore=None) is None


@pytest.mark.parametrize(
    ("shapes", "changes", "words"),
    [
        ([shape("part", "polygon", (1, 1), (5, 5))], {}, "shape 'part' has 2 points"),
        ([shape("part", "rectangle", (1, 1))], {}, "shape 'part' is a rectangle of 1 points"),
        ([shape("hole", "circle", (1, 1), (5, 5))], {}, "shape 'hole' is a circle of 2 points"),
        ([shape("part", "polygon", (1, 1), (193, 1), (5, 5))], {}, "point (193, 1) outside of the 96 x 192"),
        ([shape("part", "polygon", (1, -0.5), (9, 1), (5, 5))], {}, "point (1, -0.5) outside"),
        ([shape("part", "polygon", (1, float("nan")), (9, 1), (5, 5))], {}, "holds the number nan"),
        ([{"label": "part", "points": [[1, 1]]}], {}, "lacks 'shape_type'"),
        ([shape("part", "polygon", ("a", 1), (2, 2), (3, 3))], {}, "point ['a', 1], expected two numbers"),
        ([shape("part", "polygon", ("9", 1), (2, 2), (3, 3))], {}, "point ['9', 1], expected two numbers"),
        ([shape("part", "polygon", (True, 1), (2, 2), (3, 3))], {}, "point [True, 1], expected two numbers"),
        ([shape("part", "polygon", (1, 2, 3), (2, 2), (3, 3))], {}, "point [1, 2, 3], expected two numbers"),
        ([shape("part", "polygon", (10**18, 1), (2, 2), (3, 3))], {}, "point (1e+18, 1) outside"),
        ([shape("part", "polygon", (10**400, 1), (2, 2), (3, 3))], {}, "a whole number of 401 digits"),
        ([shape("part", "polygon", (1, -1e308), (2, 2), (3, 3))], {}, "point (1, -1e+308) outside"),
        ([shape("Ignored", "rectangle", (1, 1), (9, 9))], {}, "shape 'Ignored' may be meant to be ignored or not"),
        ([shape("ignore-2", "rectangle", (1, 1), (9, 9))], {}, "expected 'ignore' or another word"),
        ([shape("part", "rectangle", (0, 0), (9999, 9999))] * 30, LARGE, "30 shapes cover the picture too many times"),
        ([shape("zigzag", "polygon", *[(0, 0), (9, 9999)] * 14000)], LARGE, "cover the picture too many times over"),
        ([], {"imageHeight": 40000, "imageWidth": 40000}, "expected at most 134217728 pixels"),
        ([], {"imageHeight": 10**400}, "a whole number of 401 digits"),
        ([], {"imageHeight": True}, "imageHeight is True"),
        (["part"], {}, "is not a drawing of LabelMe"),
        ([], {"imageHeight": None}, "imageHeight is None"),
        ([], {"imageWidth": -3}, "imageWidth is -3"),
        ([], {"shapes": None}, "is not a drawing of LabelMe"),
        ([shape("ignore", "rectangle", (0, 0), (192, 96))], {}, "leaves nothing of the frame to inspect"),
        ([shape("part", "polygon", (5, 5), (9, 9), (7, 7))], {}, "leaves nothing of the frame to inspect"),
    ],
)
def test_drawing_that_cannot_work_is_refused_in_one_line(
    tmp_path: Path, shapes: list[Any], changes: dict[str, Any], words: str
) -> None:
    path = drawing(tmp_path / "a.json", *shapes, **changes)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"\xff\xfe",
        b'{"imageHeight": 3}',
        b"shapes:\n- label: part\n",
        b'{"a":' * 20000,
        "{}".encode("utf-16"),
    ],
)
def test_file_that_is_no_drawing_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.json .*LabelMe"):
        read(tmp_path / "a.json")


def test_missing_drawing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a\.json does not exist, expected LabelMe"):
        read(tmp_path / "a.json")


def test_mask_of_another_size_than_the_drawing_is_refused(tmp_path: Path) -> None:
    roi = drawing(tmp_path / "a.json", shape("part", "rectangle", (2, 1), (6, 5)), size=(50, 60))
    ignore = mask_file(tmp_path / "ignore.png", rectangle(0, 0, 20, 192))
    with pytest.raises(ImageError, match=r"ignore\.png is 96 x 192"):
        read(roi, ignore)


def test_mask_that_would_ignore_nothing_by_mistake_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "ignore.png", np.ones((96, 192, 3), np.uint8))
    with pytest.raises(ImageError, match="none above half of 255"):
        read(None, tmp_path / "ignore.png")


def area_of(mask: np.ndarray) -> Area:
    return Area(mask, "area.json")


def test_defect_outside_of_the_area_is_not_seen(engine: Path) -> None:
    frame = picture(60, spot=250)  # rows 24 to 48, columns 48 to 72
    with Detector.open(engine, area=area_of(rectangle(0, 80, 96, 192))) as detector:
        anomaly = detector.inspect(frame)
    assert not anomaly.is_anomalous
    assert anomaly.score == pytest.approx(60 / 255, abs=1e-5)
    assert anomaly.regions == ()
    assert not anomaly.anomaly_map[:, :80].any()
    assert anomaly.anomaly_map[:, 80:].min() == pytest.approx(60 / 255, abs=1e-5)


def test_defect_across_the_edge_of_the_area_is_cut(engine: Path) -> None:
    with Detector.open(engine, area=area_of(rectangle(0, 60, 96, 192))) as detector:
        anomaly = detector.inspect(picture(60, spot=250))
    assert anomaly.is_anomalous
    (region,) = anomaly.regions
    assert region.left == 60
    assert region.left + region.width == pytest.approx(72, abs=2)
    assert (region.top, region.height) == (pytest.approx(24, abs=2), pytest.approx(24, abs=3))
    assert region.peak == pytest.approx(250 / 255, abs=1e-5)


def test_area_of_all_pixels_scores_as_the_graph_does(engine: Path) -> None:
    rng = np.random.default_rng(0)
    with (
        Detector.open(engine) as plain,
        Detector.open(engine, area=area_of(np.ones(SIZE, np.uint8))) as detector,
    ):
        for _ in range(5):
            frame = rng.integers(0, 256, (*SIZE, 3), np.uint8)
            wanted, found = plain.inspect(frame), detector.inspect(frame)
            assert found.score == pytest.approx(wanted.score, abs=1e-6)
            assert np.array_equal(found.anomaly_map, wanted.anomaly_map)
            assert np.array_equal(found.network_map, wanted.network_map)


def test_area_smaller_than_the_pixels_of_the_score_is_scored_by_all_it_has(engine: Path) -> None:
    inside = rectangle(30, 54, 36, 60)
    pixels = np.count_nonzero(area_of(inside).scaled(INPUT_SIZE).mask)
    assert pixels < TOP_K
    with Detector.open(engine, area=area_of(inside)) as detector:
        assert detector.inspect(picture(60, spot=250)).score == pytest.approx(250 / 255, abs=1e-5)


def test_area_that_vanishes_on_the_networks_scale_is_refused(engine: Path) -> None:
    tiny = np.zeros((4096, 4096), np.uint8)
    tiny[5, 5] = 1
    with pytest.raises(ConfigError, match="nothing of it is left on a map of 64 x 128"):
        Detector.open(engine, area=area_of(tiny))


def test_frame_of_another_size_is_refused_with_both(engine: Path) -> None:
    with Detector.open(engine, area=area_of(rectangle(0, 60, 96, 192))) as detector:
        with pytest.raises(ImageError) as caught:
            detector.inspect(picture(60, size=(48, 96)))
        assert detector.inspect(picture(60)).score == pytest.approx(60 / 255, abs=1e-5)
    assert isinstance(caught.value, StlmError)
    assert "frame of 48 x 96" in str(caught.value)
    assert "area.json was drawn on one of 96 x 192" in str(caught.value)


def test_share_that_is_inspected_is_logged(engine: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), Detector.open(engine, area=area_of(rectangle(0, 0, 96, 48))):
        pass
    assert "area.json leaves 25 % of the frame to be inspected; the threshold 0.5 is for whole pictures" in caplog.text


@pytest.mark.parametrize("mask", [np.ones((4, 4), bool), np.full((4, 4), 255, np.uint8), np.ones((4, 4, 3), np.uint8)])
def test_area_that_is_no_mask_of_0_and_1_is_refused(mask: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="of 0 and 1"):
        area_of(mask)
