"""What a user brings, a line writes on and a report reads: data sets, masks, archives, tables, records.

Heavy imports stand in functions: a worker loads what its targets need.
"""

from __future__ import annotations

import hashlib
import io
import json
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np

from stlm_edge.imaging import write_image

from .mutations import write
from .target import Files, commanded, saved


def visa_files() -> Files:
    from ..datasets.conftest import write_visa

    return saved(write_visa)


def dagm_files() -> Files:
    from ..datasets.conftest import write_dagm

    return saved(lambda folder: write_dagm(folder, "Class1", good=(20, 19), defective=(1, 1)))


def listed(folder: Path) -> object:
    from stlm_edge.datasets import categories, load_category

    found = [load_category(folder, name) for name in categories(folder)]
    return [
        (
            category.name,
            [(str(sample.path.relative_to(folder)), sample.label) for sample in (*category.train, *category.test)],
        )
        for category in found
    ]


def roi_file() -> Files:
    shapes = [
        {"label": "part", "shape_type": "polygon", "points": [[2, 2], [60, 5], [30, 55.5]]},
        {"label": "ignore", "shape_type": "rectangle", "points": [[10, 10], [20, 20]]},
    ]
    return {"r.json": write({"version": "5.4", "flags": {}, "shapes": shapes, "imageHeight": 64, "imageWidth": 80})}


def read_roi(folder: Path) -> object:
    from runtime.area import read_area

    area = read_area(roi=folder / "r.json", ignore=None)
    assert area is not None
    return area.size, hashlib.sha256(area.mask.tobytes()).hexdigest()


def mask_file(suffix: str) -> Files:
    mask = np.zeros((40, 50), np.uint8)
    mask[10:20, 12:30] = 255
    return saved(lambda folder: write_image(folder / f"m{suffix}", mask))


def read_mask_file(folder: Path) -> object:
    from stlm_edge.datasets import Sample, read_truth

    (path,) = folder.glob("m.*")
    mask = read_truth(Sample(folder / "0.png", "scratch", path), size=(40, 50))
    assert mask is not None
    assert mask.any()
    assert not mask.all()
    return hashlib.sha256(mask.tobytes()).hexdigest()


def archive(kind: str) -> Files:
    from ..test_archives import write_tar, write_zip

    content = {f"set/{index}.txt": bytes([65 + index]) * 700 for index in range(4)}
    if kind == "zip":
        return saved(lambda folder: write_zip(folder / "a", content))
    return saved(lambda folder: write_tar(folder / "a", content, kind))


def unpacked(folder: Path) -> object:
    from stlm_edge.archives import unpack

    with redirect_stderr(io.StringIO()):
        unpack([folder / "a"], folder / "target", find_content=lambda inner: inner)
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in (folder / "target").rglob("*") if path.is_file()
    }


def table_settings(folder: Path) -> Any:
    from runtime.batch.table import RunSettings

    return RunSettings("0" * 64, 0.5, "/pictures", None, None, "none")


def table_files() -> Files:
    from runtime.batch.table import PictureRow, ScoreTable

    def fill(folder: Path) -> None:
        with ScoreTable(folder, table_settings(folder), restart=False) as table:
            for index in range(20):
                table.add(PictureRow(f"a/{index}.png", 0.01 * index, 0.5, False, 0, "good", 0.1))

    return saved(fill)


def continued_table(folder: Path) -> object:
    from runtime.batch.table import ScoreTable

    with ScoreTable(folder, table_settings(folder), restart=False) as table:
        done = sorted(table.done)
    return done, (folder / "scores.csv").read_bytes()


def log_file() -> Files:
    lines = [
        {"time": "2026-01-01T00:00:00.000+00:00", "frame": index, "score": 0.1, "regions": []} for index in range(30)
    ]
    return {"e.jsonl": b"".join(write(line) + b"\n" for line in lines)}


def continued_log(folder: Path) -> object:
    from runtime.event import Event
    from runtime.sinks.events import EventLog
    from runtime.sinks.lines import Rotation

    before = (folder / "e.jsonl").read_bytes()
    with EventLog(folder / "e.jsonl", engine_sha256="0", rotation=Rotation()) as log:
        log.write_event(Event("start", "again", 0.0))
    content = (folder / "e.jsonl").read_bytes()
    whole = before[: before.rfind(b"\n") + 1]
    assert content.startswith(whole), "a whole line was lost"
    assert json.loads(content.splitlines()[-1])["text"] == "again"
    return len(whole)


def shift_file() -> Files:
    """A line of each kind, several times."""
    found = {"score": 0.7, "threshold": 0.5, "regions": [{"box": [1, 2, 3, 4], "area": 9, "peak": 0.9}]}
    of_frame = {"source": "camera 0", "frame_size": [96, 192], "engine_sha256": "ab"}
    latency = dict.fromkeys(("capture", "wait", "prepare", "upload", "infer", "download", "decide", "total"), 1.5)
    kinds = [
        {"frame": 1, **found, **of_frame, "anomalous": True, "latency_ms": latency},
        {"event": "part-result", "text": "a", "part": 1, "part_id": None, "part_result": "reject", "part_ms": 4.5}
        | {"worst": {"frame": 1, **found, **of_frame}, "recipe": "bolt"},
        {"event": "camera-lost", "text": "lost"},
        {"event": "camera-back", "text": "back"},
        {"event": "drift", "text": "drift"},
    ]
    times = (f"2026-01-01T{hour:02d}:00:00.000+00:00" for hour in range(20))
    return {"e.jsonl": b"".join(write({"time": time} | kinds[at % 5]) + b"\n" for at, time in enumerate(times))}


def counted_shift(folder: Path) -> object:
    from runtime.report.tally import Tally

    tally = Tally()
    tally.read([folder / "e.jsonl"])
    return tally.lines


def record_files(benchmark: str) -> Files:
    from ..benchmarks.samples import write_record

    return saved(
        lambda folder: (write_record(folder, benchmark, name="a.json"), write_record(folder, benchmark, name="b.json"))
    )


def reported(folder: Path) -> str:
    from benchmarks.report import main

    commanded(main, str(folder / "a.json"), "--markdown", str(folder / "report.md"))
    return (folder / "report.md").read_text(encoding="utf-8")


def compared(folder: Path) -> str:
    from benchmarks.compare import main

    return commanded(main, str(folder / "b.json"), str(folder / "a.json"))


def line_file() -> Files:
    return {
        "line.yaml": b"""
engine: plate.plan
votes: 2/3
recipes:
  plate: &plate {number: 1, threshold: 0.62, part-frames: 3}
  disc:
    <<: *plate
    number: 2
    roi: disc.json
cameras:
  left: {source: 0, trigger: fifo, recipe: plate, output: [events.jsonl, left]}
  right: {source: "rtsp://camera/stream", part-gap: 5e-1, camera-faults: no, recipe-file: now}
"""
    }


def read_cameras(folder: Path) -> object:
    from runtime.camera import command
    from runtime.config import read_line

    return read_line(folder / "line.yaml", command=command)
