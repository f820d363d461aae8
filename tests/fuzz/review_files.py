"""What a review reads: a kept frame's JSON and map, and its own log."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stlm_edge.imaging import write_image

from .mutations import write
from .target import Files, saved


def kept_files() -> Files:
    stem = "20261125T225000.123456Z-000000-9f1c2ab0"
    verdict = {"score": 0.8, "threshold": 0.5, "unclear_from": 0.4, "anomalous": True, "engine_sha256": "e" * 64}
    said = {
        "format": 1,
        "camera": "left",
        "verdict": {**verdict, "time": "2026-11-25T22:50:00.123+00:00"},
        "part": {"part": 3, "part_id": "A-4711", "part_result": "reject"},
        "map": {"file": "m.map", "size": [8, 8], "low": 0.1, "high": 0.9},
    }
    shades = np.arange(64, dtype=np.uint8).reshape(8, 8)
    pictures = saved(lambda folder: write_image(folder / "m.png", shades))
    return {f"{stem}.png": pictures["m.png"], "m.map": pictures["m.png"], f"{stem}.json": write(said)}


def shown_of(folder: Path) -> object:
    """What is damaged beside a picture is told of, and costs itself alone."""
    from runtime.review.shown import layer, show

    shown = show(next(folder.glob("*.png")))
    heat = layer(shown)
    assert shown.preview is not None
    return shown.fault, shown.said.score, shown.said.verdict, shown.said.where, heat and len(heat)


def review_log() -> Files:
    made = {
        "time": "2026-11-25T22:50:00+00:00",
        "reviewer": "Ann",
        "folder": "/kept",
        "score": 0.8,
        "verdict": "reject",
    }
    calls = [
        {"seq": 1, "call": "good", "picture": "a.png", "sha256": "a" * 64, "files": ["train/good/a.png"]},
        {
            "seq": 2,
            "call": "defect",
            "picture": "b.png",
            "sha256": "b" * 64,
            "kind": "dent",
            "files": ["test/dent/b.png"],
        },
        {"seq": 3, "call": "skip", "picture": "b.png", "sha256": "b" * 64, "replaces": 2},
        {"seq": 4, "call": "undo", "of": 1},
    ]
    return {"review.jsonl": b"".join(write({**made, **call}).replace(b"\n", b" ") + b"\n" for call in calls)}


def state_by(folder: Path) -> object:
    from runtime.review.dataset import DataSet
    from runtime.review.decisions import DecisionLog
    from runtime.review.evidence import evidence

    with DecisionLog(folder) as log:
        DataSet(folder).recover(log.decisions.values(), taken_back=log.taken_back)
        return evidence(list(log.holding.values()))
