"""Folders of pictures as a line keeps them (docs/keep.md), written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from runtime.review.decisions import Call, Decision
from runtime.review.review import Item, Review

SIZE = (48, 64)


def write_picture(path: Path, *, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (*SIZE, 3), np.uint8)
    path.write_bytes(cv2.imencode(path.suffix, noise)[1].tobytes())
    return path


def keep(folder: Path, number: int, *, score: float, **verdict: Any) -> Path:
    """A frame of a line without parts, with its map: 0.9 in a square of a quarter of each side, 0.1 elsewhere."""
    stem = f"20261125T225000.123456Z-{number:06d}-9f1c2ab0"
    picture = write_picture(folder / f"{stem}.png", seed=number)
    shades = np.zeros((12, 16), np.uint8)
    shades[3:6, 4:8] = 255
    (folder / f"{stem}.map").write_bytes(cv2.imencode(".png", shades)[1].tobytes())
    said = {
        "format": 1,
        "picture": picture.name,
        "size": SIZE,
        "camera": "left",
        "recipe": None,
        "verdict": {"time": "2026-11-25T22:50:00.123+00:00", "score": score, "threshold": 0.5, "unclear_from": 0.4,
                    "anomalous": score >= 0.5, "unclear": 0.4 <= score < 0.5, "engine_sha256": "e" * 64, **verdict},
        "part": None,
        "map": {"file": f"{stem}.map", "size": [12, 16], "low": 0.1, "high": 0.9},
    }  # fmt: skip
    (folder / f"{stem}.json").write_text(json.dumps(said))
    return picture


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Six frames with the scores 0.1, 0.3, 0.45, 0.6, 0.7 and 0.9."""
    for number, score in enumerate((0.1, 0.3, 0.45, 0.6, 0.7, 0.9)):
        keep(tmp_path / "kept", number, score=score)
    return tmp_path / "kept"


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    return tmp_path / "data" / "bottle"


Open = Callable[..., Review]


@pytest.fixture
def open_review(kept: Path, data_set: Path) -> Iterator[Open]:
    """Opens the review of `kept` into `data_set`, once the one opened before is closed."""
    with ExitStack() as stack:

        def start(folder: Path = kept, *, test_share: float = 0, labelme: bool = False) -> Review:
            stack.close()
            return stack.enter_context(Review(folder, data_set, test_share=test_share, labelme=labelme))

        yield start


def decide(review: Review, item: Item, call: Call = "good", **more: Any) -> Decision:
    more = {"reviewer": "Ann", "replaces": item.decision.seq if item.decision else None, **more}
    return review.decide(item.number, call, sha256=item.shown.sha256, **more)


def take(review: Review, session: str = "s") -> Item:
    (item,) = review.take(session, 1)
    return item
