"""What a line said of a picture, and what follows from it with what inspectors decided."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.review.evidence import evidence
from runtime.review.shown import layer
from runtime.sinks import SinkContext, open_sink
from tests.runtime.review.conftest import Open, decide, take, write_picture
from tests.runtime.sinks.conftest import inspection


def test_what_the_line_said_comes_along(open_review: Open):
    review = open_review()
    said = [item.shown.said for item in review.take("s", 6)]
    assert [(each.verdict, each.score) for each in said] == [
        ("good", 0.1), ("good", 0.3), ("unclear", 0.45), ("reject", 0.6), ("reject", 0.7), ("reject", 0.9)
    ]  # fmt: skip
    anomaly_map = review.shown(0).anomaly_map
    assert anomaly_map is not None
    assert anomaly_map[4, 5] == pytest.approx(0.9)
    assert anomaly_map[0, 0] == pytest.approx(0.1)
    heat = cv2.imdecode(np.frombuffer(layer(review.shown(0)) or b"", np.uint8), cv2.IMREAD_UNCHANGED)
    assert heat[4, 5, 3] > 100
    assert heat[0, 0, 3] == 0


def test_what_a_line_keeps_is_understood(open_review: Open, tmp_path: Path):
    context = SinkContext(engine_sha256="e" * 64, has_parts=False, camera="left")
    with open_sink(f"{tmp_path / 'line'}?what=raw&near=0", context=context) as sink:
        for index, how in enumerate(({"score": 0.2}, {"score": 0.75}, {"fault": "frozen"})):
            sink.write(inspection(index, image=np.full((96, 192, 3), 40 * index, np.uint8), **how))
    items = open_review(tmp_path / "line").take("s", 8)
    said = [item.shown.said for item in items]
    assert [(each.verdict, each.score, each.where) for each in said] == [
        ("good", 0.2, "left"), ("reject", 0.75, "left"), ("fault", None, "left")
    ]  # fmt: skip
    assert [item.shown.anomaly_map is None for item in items] == [False, False, True]
    assert [item.shown.fault for item in items] == [None] * 3


def test_results_of_parts_count_where_there_are_parts(open_review: Open, kept: Path):
    path = next(kept.glob("*000000*.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "part": {"part_result": "reject", "part_id": "A-1"}}))
    said = open_review().shown(0).said
    assert (said.verdict, said.where) == ("reject", "left, A-1")


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2, "verdict": {}}', '{"format": 1}'])
def test_broken_json_costs_what_it_says_alone(open_review: Open, kept: Path, text: str):
    next(kept.glob("*000000*.json")).write_text(text)
    review = open_review()
    item = take(review)
    assert ".json" in str(item.shown.fault)
    assert item.shown.said.score is None
    decide(review, item)


def test_a_map_is_not_taken_from_elsewhere(open_review: Open, kept: Path):
    path = next(kept.glob("*000000*.json"))
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "map": {**data["map"], "file": "../secret.png"}}))
    write_picture(kept.parent / "secret.png", seed=0)
    assert open_review().shown(0).anomaly_map is None


def test_disagreements_and_what_the_threshold_would_have_to_be(open_review: Open):
    review = open_review()
    items = review.take("s", 6)  # with scores 0.1, 0.3, 0.45, 0.6, 0.7, 0.9
    for item, call in zip(items, ("good", "defect", "good", "good", "defect", "defect"), strict=True):
        decide(review, item, call, kind="dent")
    assert [entry.number for entry in review.entries() if entry.decision and entry.decision.disagrees] == [3, 1]
    found = evidence(review.decisions)
    assert found.now is not None
    assert (found.now.threshold, found.now.refused, found.now.missed) == (0.5, 1, 1)
    assert [(round(each.threshold, 3), each.refused, each.missed) for each in found.refusing] == [
        (0.6, 0, 1), (0.45, 1, 1), (0.1, 2, 0)
    ]  # fmt: skip
    assert [(each.threshold, each.refused, each.missed) for each in found.missing] == [
        (0.3, 2, 0),
        (0.7, 0, 1),
        (0.9, 0, 2),
    ]
    assert found.best is not None
    assert (found.best.refused, found.best.missed) == (0, 1)
