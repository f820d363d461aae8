"""Large frames in tiles."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path

import numpy as np
import pytest

from runtime.area import Area
from runtime.detector import Detector
from runtime.stitching import Canvas, stitched
from runtime.tiling import OVERLAP, Tiling, parse_tile
from stlm_edge.errors import ConfigError, EngineError, ImageError
from stlm_edge.imaging import Image, resize_map
from stlm_edge.spec import Size

from .conftest import INPUT_SIZE
from .rule_engine import write_rule_engine

TILE = INPUT_SIZE
"""Frames that the network sees at their own scale."""

LAYOUTS = [
    ((200, 300), (64, 128), (64, 128)),
    ((64, 500), (64, 128), (64, 128)),
    ((65, 129), (64, 128), (64, 128)),
    ((130, 130), (128, 128), (128, 128)),
    ((1000, 777), (96, 130), (96, 130)),
    ((240, 240), (96, 96), (96, 96)),
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rule_engine(tmp_path_factory.mktemp("engine") / "rule.onnx")


@pytest.fixture(scope="module")
def batched_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rule_engine(tmp_path_factory.mktemp("engine") / "batched.onnx", max_batch=3)


def grey(size: Size, value: int = 60) -> Image:
    return np.full((*size, 3), value, np.uint8)


def with_spot(size: Size, row: int, column: int, *, side: int = 12) -> Image:
    frame = grey(size)
    frame[row : row + side, column : column + side] = 250
    return frame


@pytest.mark.parametrize(("frame", "tile", "network"), [*LAYOUTS, ((1080, 1920), (512, 512), (64, 96))])
def test_tiles_cover_the_frame_and_overlap(frame: Size, tile: Size, network: Size) -> None:
    tiling = Tiling(frame, tile=tile, input_size=network)
    covered = np.zeros(frame, int)
    for top, left, height, width in tiling.boxes:
        assert (height, width) == (min(tile[0], frame[0]), min(tile[1], frame[1]))
        assert min(top, left) >= 0
        assert top + height <= frame[0]
        assert left + width <= frame[1]
        covered[top : top + height, left : left + width] += 1
    assert covered.min() == 1
    for side in (0, 1):
        starts = sorted({box[side] for box in tiling.boxes})
        for before, behind in itertools.pairwise(starts):
            assert before + tile[side] - behind >= OVERLAP * tile[side] - 1


@pytest.mark.parametrize(("frame", "tile", "network"), LAYOUTS)
def test_map_that_is_cut_into_tiles_comes_back_without_a_seam(frame: Size, tile: Size, network: Size) -> None:
    rows, columns = np.mgrid[: frame[0], : frame[1]]
    whole = (0.5 + 0.3 * np.sin(rows / 37) + 0.2 * np.cos(columns / 23 + rows / 51)).astype(np.float32)
    tiling = Tiling(frame, tile=tile, input_size=network)
    maps = np.stack([tiling.cut(whole, index) for index in range(len(tiling.boxes))])
    back = stitched(maps, tiling)
    assert back.shape == frame
    assert np.abs(back - whole).max() < 1e-6


def test_smooth_scene_comes_back_on_a_coarser_scale_too() -> None:
    frame, tile, network = (1080, 1920), (512, 512), (128, 128)
    rows, columns = np.mgrid[: frame[0], : frame[1]]
    whole = (0.5 + 0.3 * np.sin(rows / 150) + 0.2 * np.cos(columns / 170)).astype(np.float32)
    tiling = Tiling(frame, tile=tile, input_size=network)
    maps = np.stack([resize_map(tiling.cut(whole, index), (64, 64)) for index in range(len(tiling.boxes))])
    back = stitched(maps, tiling)
    assert back.shape == tiling.canvas_size == (270, 480)
    # Half a cell at the border of a tile has no neighbour to be interpolated with.
    assert np.abs(resize_map(back, frame) - whole).max() < 0.015


def test_tiles_that_disagree_are_joined_by_a_ramp_and_not_by_a_step() -> None:
    tiling = Tiling((64, 240), tile=TILE, input_size=INPUT_SIZE)
    assert len(tiling.boxes) == 2
    maps = np.stack([np.full((8, 8), value, np.float32) for value in (0, 1)])
    across = stitched(maps, tiling)[30]
    assert across[:112].max() == 0
    assert across[128:].min() == 1
    assert np.all(np.diff(across) >= 0)
    assert np.diff(across).max() < 1.5 / 16


def test_canvas_is_used_again() -> None:
    tiling = Tiling((100, 200), tile=TILE, input_size=INPUT_SIZE)
    canvas = Canvas(tiling)
    for value in (0.75, 0.25):
        canvas.clear()
        for index in range(len(tiling.boxes)):
            canvas.lay(index, np.full((8, 8), value, np.float32))
        assert canvas.stitched() == pytest.approx(value, abs=1e-6)
        assert canvas.score(top_k=10) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("size", [TILE, (40, 100), (64, 30)])
def test_frame_not_larger_than_a_tile_gives_what_it_gives_without(engine: Path, size: Size) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    with Detector.open(engine) as plain, Detector.open(engine, tile=TILE) as detector:
        wanted, found = plain.inspect(frame), detector.inspect(frame)
    assert found.score == wanted.score
    assert found.tiling is None
    assert np.array_equal(found.anomaly_map, wanted.anomaly_map)


def test_defect_that_one_large_picture_hides_is_found_in_tiles(engine: Path) -> None:
    frame = with_spot((640, 1280), 300, 700, side=8)
    with Detector.open(engine) as plain, Detector.open(engine, tile=TILE) as detector:
        assert not plain.inspect(frame).is_anomalous
        anomaly = detector.inspect(frame)
    assert anomaly.is_anomalous
    assert anomaly.score == pytest.approx(250 / 255, abs=1e-5)
    (region,) = anomaly.regions
    assert (region.left, region.top) == (pytest.approx(700, abs=2), pytest.approx(300, abs=2))
    assert (region.width, region.height) == (pytest.approx(8, abs=3), pytest.approx(8, abs=3))
    assert anomaly.anomaly_map.shape == (640, 1280)


def test_defect_on_the_border_of_tiles_peaks_as_high_as_in_the_middle(engine: Path) -> None:
    """To 1e-5: the tiles that see it agree on it, and the weights add up to 1."""
    size = (120, 240)
    tiling = Tiling(size, tile=TILE, input_size=INPUT_SIZE)
    starts = [sorted({box[side] for box in tiling.boxes}) for side in (0, 1)]
    assert [len(side) for side in starts] == [2, 2]
    with Detector.open(engine, tile=TILE) as detector:
        middle = detector.inspect(with_spot(size, 20, 40))
        for row, column in itertools.product((56, 60, 50), (112, 120, 106)):  # on the edges of tiles, and around
            anomaly = detector.inspect(with_spot(size, row, column))
            assert anomaly.regions[0].peak == pytest.approx(middle.regions[0].peak, abs=1e-5)
            assert anomaly.score == pytest.approx(middle.score, abs=1e-5)
            assert len(anomaly.regions) == 1


def test_tiles_larger_than_the_networks_input_are_scored_on_its_scale(engine: Path) -> None:
    with Detector.open(engine, tile=(128, 256)) as detector:
        anomaly = detector.inspect(with_spot((300, 600), 140, 290, side=40))
        tiling = anomaly.tiling
        assert tiling is not None
        assert tiling.canvas_size == (150, 300)
        assert anomaly.score == pytest.approx(250 / 255, abs=1e-5)
    (region,) = anomaly.regions
    assert (region.left, region.top) == (pytest.approx(290, abs=3), pytest.approx(140, abs=3))


def test_batches_of_tiles_give_the_same(engine: Path, batched_engine: Path) -> None:
    frame = np.random.default_rng(2).integers(0, 256, (200, 500, 3), np.uint8)
    with Detector.open(engine, tile=TILE) as single, Detector.open(batched_engine, tile=TILE) as detector:
        wanted, found = single.inspect(frame), detector.inspect(frame)
    assert len(found.network_map) % 3 != 0  # the last batch is not full
    assert np.array_equal(found.network_map, wanted.network_map)
    assert found.score == pytest.approx(wanted.score, abs=1e-6)


@pytest.mark.parametrize("tile", [None, TILE])
def test_two_calls_in_hand_keep_their_own_answers(engine: Path, tile: Size | None) -> None:
    frames = [grey((200, 300), 40), grey(TILE, 80), grey((100, 300), 120), grey((200, 300), 160)]
    with Detector.open(engine, tile=tile) as detector:
        scores = []
        pending = [detector.submit([frame]) for frame in frames[:2]]
        for frame in frames[2:]:
            scores += [anomaly.score for anomaly in pending.pop(0).result()]
            pending.append(detector.submit([frame]))
        for left in pending:
            scores += [anomaly.score for anomaly in left.result()]
    assert scores == pytest.approx([value / 255 for value in (40, 80, 120, 160)], abs=1e-5)


def test_one_call_in_hand_keeps_the_network_busy_with_tiles(engine: Path, batched_engine: Path) -> None:
    with Detector.open(engine) as detector:
        assert (detector.max_batch, detector.in_hand) == (1, 2)
    with Detector.open(batched_engine, tile=TILE) as detector:
        assert (detector.max_batch, detector.in_hand) == (1, 1)


def test_tiles_outside_of_the_area_are_not_inferred(engine: Path) -> None:
    inside = np.zeros((200, 400), np.uint8)
    inside[:40, :90] = 1
    frame = with_spot((200, 400), 20, 60)
    frame[100:, 200:] = 255
    with Detector.open(engine, tile=TILE, area=Area(inside, "area.json")) as detector:
        anomaly = detector.inspect(frame)
    assert len(anomaly.network_map) == 1
    assert anomaly.score == pytest.approx(250 / 255, abs=1e-5)
    (region,) = anomaly.regions
    assert region.left == pytest.approx(60, abs=2)
    assert not anomaly.anomaly_map[40:].any()
    assert not anomaly.anomaly_map[:, 90:].any()


def test_area_across_tiles_cuts_regions(engine: Path) -> None:
    inside = np.zeros((200, 400), np.uint8)
    inside[:, 100:] = 1
    with Detector.open(engine, tile=TILE, area=Area(inside, "area.json")) as detector:
        anomaly = detector.inspect(with_spot((200, 400), 50, 90, side=30))
    (region,) = anomaly.regions
    assert (region.left, region.width) == (100, pytest.approx(20, abs=2))
    assert not anomaly.anomaly_map[:, :100].any()


def test_latencies_of_tiles_add_up_to_less_than_the_call_took(engine: Path) -> None:
    with Detector.open(engine, tile=TILE) as detector:
        latency = detector.inspect(grey((300, 600))).latency
    assert min(latency.prepare_ms, latency.infer_ms, latency.decide_ms) > 0
    assert (latency.upload_ms, latency.download_ms) == (0, 0)


def test_closed_detector_inspects_no_tiles(engine: Path) -> None:
    with Detector.open(engine, tile=TILE) as detector:
        pass
    with pytest.raises(EngineError, match="has been closed"):
        detector.inspect(grey((300, 600)))


def test_frame_that_is_no_picture_is_refused(engine: Path) -> None:
    with Detector.open(engine, tile=TILE) as detector, pytest.raises(ImageError, match="expected"):
        detector.inspect(np.zeros((300, 600, 4), np.uint8))


def test_how_many_tiles_is_logged_once_for_each_size(engine: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), Detector.open(engine, tile=TILE) as detector:
        for size in [(100, 200), (100, 200), (64, 200)]:
            detector.inspect(grey(size))
    lines = [line for line in caplog.messages if line.startswith("frames of")]
    assert lines == [
        "frames of 100 x 200 are inspected in 4 tiles of 64 x 128",
        "frames of 64 x 200 are inspected in 2 tiles of 64 x 128",
    ]
    assert "the threshold 0.5 is for one picture" in caplog.text


def test_tile_is_parsed_with_its_height_first() -> None:
    assert parse_tile("1024") == (1024, 1024)
    assert parse_tile("768x1024") == (768, 1024)


@pytest.mark.parametrize("text", ["", "x", "10x", "-5", "10x10x10", "1.5"])
def test_tile_that_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a side or height x width"):
        parse_tile(text)


def test_tile_that_is_too_small_is_refused(engine: Path) -> None:
    with pytest.raises(ConfigError, match="a tile is 31 x 64 pixels, expected at least 32 x 32"):
        Detector.open(engine, tile=(31, 64))


def test_map_is_not_lowered_along_the_edge_of_the_area(engine: Path) -> None:
    """On a scale of the canvas that is not the frame's, where the edge lies between pixels."""
    inside = np.zeros((300, 600), np.uint8)
    inside[31:269, 33:333] = 1
    with Detector.open(engine, tile=(150, 290), area=Area(inside, "area.json")) as detector:
        anomaly = detector.inspect(grey((300, 600), 200))
    assert anomaly.anomaly_map[40:260, 40:320] == pytest.approx(200 / 255, abs=1e-5)
    assert anomaly.anomaly_map[inside > 0] == pytest.approx(200 / 255, abs=1e-5)
    assert anomaly.anomaly_map[inside == 0].max() == 0
    (region,) = anomaly.regions
    assert region.area == inside.sum()
