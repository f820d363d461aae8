from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.inspection import Inspection
from stlm_edge.errors import OutputError
from stlm_edge.imaging import read_image

from .conftest import NOISE, inspection, never_drawn, part, sink_for


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_pictures_are_named_so_that_they_sort_by_time(tmp_path: Path) -> None:
    folder = tmp_path / "overlays"
    now_s = time.monotonic()
    with sink_for(folder) as sink:
        sink.write(inspection(999_999, timestamp_s=now_s - 7200))
        sink.write(inspection(1_000_000, timestamp_s=now_s - 3600))
        sink.write(inspection(1_000_001, timestamp_s=now_s))
    assert [name.rpartition("-")[2] for name in names(folder)] == ["999999.jpg", "1000000.jpg", "1000001.jpg"]
    assert read_image(folder / names(folder)[0]).shape == (96, 192, 3)


def test_no_picture_is_overwritten_after_a_restart(tmp_path: Path) -> None:
    for _ in range(2):
        with sink_for(tmp_path) as sink:
            sink.write(inspection(0))
    assert len(names(tmp_path)) == 2


@pytest.mark.parametrize(
    ("seen", "is_written"),
    [
        (inspection(score=0.2), False),
        (inspection(score=0.9), True),
        (inspection(score=0.2, alarm=True), True),
        (inspection(fault="frozen"), True),
    ],
    ids=["good", "anomaly", "alarm", "fault"],
)
def test_only_anomalies_leaves_out_good_frames(tmp_path: Path, seen: Inspection, is_written: bool) -> None:
    for only in ("anomalies", "all"):
        with sink_for(f"{tmp_path / only}?only={only}") as sink:
            sink.write(seen)
    assert len(names(tmp_path / "anomalies")) == is_written
    assert len(names(tmp_path / "all")) == 1


@pytest.mark.parametrize("only", ["reject", "unclear"])
def test_worst_frame_of_a_part_is_kept(tmp_path: Path, only: str) -> None:
    with sink_for(f"{tmp_path}?only={only}") as sink:
        sink.write(inspection(1, score=0.9, alarm=True, picture=never_drawn))
        for number, verdict in enumerate(("good", "unclear", "reject", "missed", "fault")):
            sink.write_part(part(number, verdict, worst=inspection(10 + number)))
        sink.write_part(part(9, "reject"))  # of which nothing was judged
    assert [name.rpartition("-")[2] for name in names(tmp_path)] == [f"0000{11 if only == 'unclear' else 12}.jpg"]


def test_part_whose_picture_had_no_room_is_told_of(tmp_path: Path) -> None:
    with sink_for(f"{tmp_path}?only=reject") as sink, pytest.raises(OutputError, match="too slow for the line"):
        sink.write_part(part(worst=inspection().without_picture()))


def test_good_frames_that_are_left_out_are_not_drawn(tmp_path: Path) -> None:
    with sink_for(f"{tmp_path}?only=anomalies") as sink:
        sink.write(inspection(score=0.2, picture=never_drawn))


def test_oldest_pictures_go_and_nothing_else_does(tmp_path: Path) -> None:
    others = ["notes.txt", "000001.jpg", "20200101T000000Z.jpg", "mine-20200101T000000.000000Z-000001.jpg"]
    for name in others:
        (tmp_path / name).write_bytes(bytes(3_000_000))
    (tmp_path / "20200101T000000.000000Z-000001.jpg").write_bytes(bytes(10))
    (tmp_path / ".20200101T000000.000000Z-000002.jpg.k1ll3d__.jpg").write_bytes(bytes(10))
    with sink_for(f"{tmp_path}?limit=5MB") as sink:
        for index in range(8):
            sink.write(inspection(index, image=NOISE))
    kept = sorted(set(names(tmp_path)) - set(others))
    assert len(kept) == len(names(tmp_path)) - len(others)
    assert [name[-5] for name in kept] == [str(index) for index in range(8 - len(kept), 8)]
    assert 0 < sum((tmp_path / name).stat().st_size for name in kept) <= 5_000_000


def test_limit_holds_for_what_an_earlier_run_left(tmp_path: Path) -> None:
    with sink_for(tmp_path) as sink:
        for index in range(4):
            sink.write(inspection(index, image=NOISE))
    last = names(tmp_path)[-1]
    sink_for(f"{tmp_path}?limit=1MB").close()
    assert names(tmp_path) == [last]


def test_new_pictures_are_kept_when_the_clock_was_set_back(tmp_path: Path) -> None:
    for index in range(4):
        (tmp_path / f"29990101T000000.00000{index}Z-00000{index}.jpg").write_bytes(bytes(1_000_000))
    with sink_for(f"{tmp_path}?limit=4MB") as sink:
        sink.write(inspection(17))
    assert [name[-6:] for name in names(tmp_path)] == ["17.jpg", "01.jpg", "02.jpg", "03.jpg"]


def test_picture_on_a_full_disk_is_not_half_written(small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(1 << 10)
    with sink_for(folder) as sink:
        with pytest.raises(OutputError, match="No space left"):
            sink.write(inspection(0, image=NOISE))
        assert names(folder) == []
        sink.write(inspection(1))
    assert len(names(folder)) == 1
