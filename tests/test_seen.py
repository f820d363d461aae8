"""Pictures that a model has learnt from or remembers are known again, wherever it went."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from stlm_edge import seen
from stlm_edge.errors import DataError, SpecError
from stlm_edge.imaging import read_image
from stlm_edge.seen import SeenPictures, digest_of, seen_of
from stlm_edge.spec import ModelSpec

PICTURES = list(np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8))
DIGESTS = [digest_of(picture) for picture in PICTURES]
SPEC = ModelSpec("x", "stlm-tiny", (32, 32), (32, 32), "", seen=seen_of(DIGESTS[:2]))


def shown(spec: ModelSpec, *numbers: int) -> SeenPictures:
    pictures = SeenPictures(spec)
    for number in numbers:
        pictures.add(DIGESTS[number], name=f"{number}.png")
    return pictures


def test_copy_by_another_name_and_in_another_format_is_the_same_picture(tmp_path):
    for name in ("a.png", "b.bmp"):
        cv2.imwrite(str(tmp_path / name), PICTURES[0])
        assert digest_of(read_image(tmp_path / name)) == DIGESTS[0]
    assert len({*DIGESTS, digest_of(PICTURES[0].reshape(6, 5, 3))}) == 5


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((0, 1), r"m\.onnx remembers 2 of these 2 good pictures \(the first is 0\.png\)"),
        ((2, 3, 1), r"remembers 1 of these 3 good pictures \(1\.png\)"),
    ],
)
def test_no_threshold_is_chosen_by_pictures_that_are_remembered(numbers, words):
    with pytest.raises(DataError, match=words):
        shown(dataclasses.replace(SPEC, memory=9), *numbers).require_new("m.onnx")


def test_pictures_that_a_head_has_learnt_from_are_warned_of(caplog):
    shown(SPEC, 0, 3).require_new("m.onnx")
    assert "SEEN PICTURES: m.onnx has learnt from 1 of these 2 good pictures (0.png)" in caplog.text


def test_new_pictures_are_taken_without_a_word(caplog):
    for spec in (SPEC, dataclasses.replace(SPEC, memory=9), dataclasses.replace(SPEC, seen="")):
        shown(spec, 2, 3).require_new("m.onnx")
        shown(spec, 2, 3).warn("m.onnx")
    assert not caplog.records


def test_memory_that_does_not_say_what_it_holds_is_warned_of(caplog):
    shown(dataclasses.replace(SPEC, memory=9, seen=""), 0).require_new("m.onnx")
    assert "SEEN PICTURES? m.onnx remembers good pictures and does not say which" in caplog.text


def test_specification_stays_small(monkeypatch):
    monkeypatch.setattr(seen, "MOST_DIGESTS", 2)
    assert seen_of(DIGESTS) == DIGESTS[0] + DIGESTS[2]
    assert seen_of(DIGESTS[:3]) == DIGESTS[0] + DIGESTS[2]
    assert seen_of([]) == ""


def test_damaged_digests_are_refused():
    for damaged in ("12", "x" * 12):
        with pytest.raises(SpecError, match="expected 12 hexadecimal digits for each picture"):
            dataclasses.replace(SPEC, seen=damaged)
