from __future__ import annotations

import csv
from datetime import datetime, timezone
from pathlib import Path

import pytest

from runtime.regions import Region
from stlm_edge.errors import OutputError

from .conftest import ENGINE, inspection, part, sink_for

LATENCIES = {
    "capture_ms": "1",
    "wait_ms": "2",
    "prepare_ms": "3",
    "upload_ms": "4",
    "infer_ms": "5",
    "download_ms": "6",
    "decide_ms": "7.0",
    "total_ms": "28",
}


def test_table_has_the_same_facts(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    region = Region(left=10, top=20, width=30, height=40, area=900, peak=0.8)
    for index, seen in enumerate([inspection(0, label="crack", regions=(region,)), inspection(1, fault="black")]):
        with sink_for(path) as sink:
            sink.write(seen)
        assert len(path.read_text().splitlines()) == index + 2
    with path.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert datetime.fromisoformat(first.pop("time")).tzinfo == timezone.utc
    assert first == {
        "frame": "0",
        "source": "test://",
        "score": "0.75",
        "threshold": "0.5",
        "anomalous": "True",
        "alarm": "False",
        "part": "4",
        "fault": "",
        "regions": "1",
        "label": "crack",
        **LATENCIES,
        "engine_sha256": ENGINE,
    }
    assert (second["fault"], second["score"], second["anomalous"]) == ("black", "", "")


def test_table_of_parts_has_a_row_for_each(tmp_path: Path) -> None:
    path = tmp_path / "parts.csv"
    with sink_for(f"{path}?rows=parts") as sink:
        sink.write(inspection(7))
        sink.write_part(part(3, worst=inspection(7), part_id="=4711"))
        sink.write_part(part(4, "missed"))
    with path.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert datetime.fromisoformat(first.pop("time")).tzinfo == timezone.utc
    assert float(first.pop("part_ms")) == pytest.approx(12.5)
    assert first == {
        "part": "3",
        "part_id": "'=4711",
        "part_result": "reject",
        "frames": "2",
        "recipe": "",
        "frame": "7",
        "source": "test://",
        "score": "0.75",
        "threshold": "0.5",
        "regions": "0",
        "engine_sha256": ENGINE,
    }
    assert [second[key] for key in ("part", "part_id", "part_result", "frame", "score")] == ["4", "", "missed", "", ""]


def test_table_of_frames_leaves_parts_out(tmp_path: Path) -> None:
    with sink_for(tmp_path / "scores.csv") as sink:
        sink.write_part(part())
        sink.write(inspection())
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 2


def test_table_with_other_columns_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("path,score\na.png,0.5\n")
    with pytest.raises(OutputError, match=r"begins with 'path,score'.*choose another file"):
        sink_for(path)
    assert path.read_text() == "path,score\na.png,0.5\n"


def test_torn_row_of_a_table_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    with sink_for(path) as sink:
        sink.write(inspection(0))
    whole = path.read_text()
    path.write_text(whole + whole.splitlines()[1][:40])
    with sink_for(path) as sink:
        sink.write(inspection(1))
    with path.open(newline="") as file:
        assert [row["frame"] for row in csv.DictReader(file)] == ["0", "1"]


def test_half_of_a_foreign_row_is_not_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("day,parts\n2026-11-27,4\n2026-11-28,5")
    with pytest.raises(OutputError, match=r"begins with 'day,parts"):
        sink_for(path)
    assert path.read_text() == "day,parts\n2026-11-27,4\n2026-11-28,5"


@pytest.mark.parametrize("end", ["time,fra", "\0" * 4000, "time\0\0\0"])
def test_half_a_header_is_written_anew(tmp_path: Path, end: str) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(end)
    with sink_for(path) as sink:
        sink.write(inspection(3))
    with path.open(newline="") as file:
        assert [row["frame"] for row in csv.DictReader(file)] == ["3"]
