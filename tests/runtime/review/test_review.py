"""What reviewers decide, and what comes of it on the disk."""

from __future__ import annotations

import json
import os
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.review.decisions import LOG, ConflictError
from runtime.review.review import Review
from stlm_edge.datasets.layouts import load_category
from stlm_edge.errors import ConfigError, ControlError, DataError, ImageError, OutputError
from stlm_edge.masks import read_mask
from tests.runtime.review.conftest import SIZE, Open, decide, keep, take, write_picture


def square(size: tuple[int, int] = SIZE) -> bytes:
    """A mask of a quarter of each side."""
    mask = np.zeros(size, np.uint8)
    mask[: size[0] // 4, : size[1] // 4] = 255
    return cv2.imencode(".png", mask)[1].tobytes()


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def in_data_set(root: Path) -> set[str]:
    """What a training sees."""
    return {name for name in tree(root) if not name.startswith(".") and name != LOG}


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file can grow beyond so many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_decisions_make_a_data_set_and_change_nothing_in_the_folder(open_review: Open, kept: Path, data_set: Path):
    before = tree(kept)
    review = open_review(labelme=True)
    good, skipped, defect = (take(review) for _ in range(3))
    decide(review, good)
    decide(review, skipped, "skip")
    decide(review, defect, "defect", kind=" dent  deep ", mask=square(), reviewer="Bo")
    assert tree(kept) == before
    category = load_category(data_set.parent, "bottle")
    assert [sample.path.read_bytes() for sample in category.train] == [before[good.name]]
    (found,) = category.test
    assert (found.label, found.path.read_bytes()) == ("dent deep", before[defect.name])
    assert found.mask is not None
    assert read_mask(found.mask, size=SIZE).sum() == SIZE[0] * SIZE[1] // 16
    drawing = json.loads((data_set / "labelme" / "dent deep" / found.path.with_suffix(".json").name).read_text())
    assert (data_set / "labelme" / "dent deep" / drawing["imagePath"]).samefile(found.path)
    assert [shape["label"] for shape in drawing["shapes"]] == ["dent deep"]
    lines = [json.loads(line) for line in (data_set / LOG).read_text().splitlines()]
    assert [(line["call"], line["reviewer"], line["picture"]) for line in lines] == [
        ("good", "Ann", good.name), ("skip", "Ann", skipped.name), ("defect", "Bo", defect.name)
    ]  # fmt: skip
    assert review.counts() == {"good": 1, "defect": 1, "skip": 1, "disagree": 0, "open": 3, "in_hand": 0}


def test_it_goes_on_where_one_was(open_review: Open):
    review = open_review()
    first = take(review)
    decide(review, first)
    again = open_review()
    assert take(again).number == first.number + 1
    assert again.item(first.number).decision == review.decisions[0]


@pytest.mark.parametrize("share", [0, 1])
def test_good_ones_go_to_train_or_test_by_the_stated_share(open_review: Open, data_set: Path, share: float):
    review = open_review(test_share=share)
    decide(review, take(review))
    assert {name.rpartition("/")[0] for name in in_data_set(data_set)} == {"test/good" if share else "train/good"}


def test_undo_moves_files_aside_and_asks_again(open_review: Open, data_set: Path):
    review = open_review()
    first, second = take(review), take(review)
    decide(review, first)
    made = decide(review, second, "defect", kind="dent", mask=square())
    content = [(data_set / name).read_bytes() for name in made.files]
    taken, number = review.undo("s", reviewer="Ann")
    assert (taken, number) == (made, second.number)
    assert len(in_data_set(data_set)) == 1
    assert [(data_set / ".undone/2" / name).read_bytes() for name in made.files] == content
    again = open_review()
    assert take(again).number == second.number
    decide(again, again.item(second.number), "defect", kind="dent", mask=square())
    open_review()  # which leaves alone what belongs to the decision that holds, under the same names
    assert sorted(in_data_set(data_set)) == sorted((*made.files, f"train/good/{first.name}"))


def test_undo_is_of_the_reviewer_who_asks(open_review: Open):
    review = open_review()
    decide(review, take(review), reviewer="Ann")
    decide(review, take(review), reviewer="Bo")
    taken, _ = review.undo("s", reviewer="Ann")
    assert taken.seq == 1
    with pytest.raises(ControlError, match="Ann has decided nothing"):
        review.undo("s", reviewer="Ann")


def test_no_decision_replaces_one_that_the_reviewer_has_not_seen(open_review: Open, data_set: Path):
    review = open_review()
    item = take(review)
    first = decide(review, item, reviewer="Ann")
    with pytest.raises(ConflictError, match="Ann has decided meanwhile") as found:
        decide(review, item, "defect", kind="dent", reviewer="Bo")
    assert found.value.decision == first
    decide(review, review.item(item.number), "defect", kind="dent", reviewer="Bo")
    assert in_data_set(data_set) == {f"test/dent/{item.name}"}
    assert (data_set / ".undone/1/train/good" / item.name).exists()


def test_reviewers_get_different_pictures_and_those_that_others_leave(open_review: Open):
    review = open_review()
    first, second = review.take("a", 3), review.take("b", 8)
    assert {item.number for item in first} == {0, 1, 2}
    assert {item.number for item in second} == {3, 4, 5}
    review.release("a")
    assert [item.number for item in review.take("b", 8)] == [0, 1, 2]


def test_who_does_nothing_for_long_loses_the_pictures(open_review: Open, monkeypatch: pytest.MonkeyPatch):
    review = open_review()
    review.take("a", 6)
    assert review.take("b", 1) == []
    now_s = time.monotonic()
    monkeypatch.setattr("runtime.review.queue.time.monotonic", lambda: now_s + 599)
    assert review.take("a", 1) == review.take("b", 1) == []  # as a page that nobody touches asks, again and again
    monkeypatch.setattr("runtime.review.queue.time.monotonic", lambda: now_s + 601)
    assert review.take("a", 1) == []
    assert [item.number for item in review.take("b", 1)] == [0]


def test_who_decides_keeps_the_pictures(open_review: Open, monkeypatch: pytest.MonkeyPatch):
    review = open_review()
    review.take("a", 6)
    now_s = time.monotonic()
    monkeypatch.setattr("runtime.review.queue.time.monotonic", lambda: now_s + 599)
    review.touch("a")
    monkeypatch.setattr("runtime.review.queue.time.monotonic", lambda: now_s + 700)
    assert review.take("b", 1) == []


@pytest.mark.parametrize("goes", ["folder", "log"])
def test_nothing_is_written_beside_a_log_that_was_moved(open_review: Open, data_set: Path, goes: str):
    review = open_review()
    decide(review, take(review))
    (data_set if goes == "folder" else data_set / LOG).rename(data_set.parent / "moved")
    for act in (lambda: decide(review, take(review)), lambda: review.undo("s", reviewer="Ann")):
        with pytest.raises(OutputError, match=r"review.jsonl was moved or deleted .* put it back"):
            act()
    assert not [path for path in data_set.rglob("*") if path.is_file() and "000001" in path.name]


def test_one_program_reviews_a_folder(open_review: Open, kept: Path, data_set: Path, tmp_path: Path):
    open_review()
    (tmp_path / "more").mkdir()
    for folder, root in ((kept, tmp_path / "other"), (tmp_path / "more", data_set)):
        with pytest.raises(OutputError, match="is under review by another program"):
            Review(folder, root, test_share=0, labelme=False)
    assert not (tmp_path / "other").exists()


def test_pictures_that_come_meanwhile_are_shown_too(open_review: Open, kept: Path, monkeypatch: pytest.MonkeyPatch):
    review = open_review()
    review.take("s", 6)
    (kept / "20261125T225000.123456Z-000007-9f1c2ab0.png").write_bytes(b"not finished")
    keep(kept, 8, score=0.2)
    assert review.take("s", 1) == []
    monkeypatch.setattr("runtime.review.review._LOOKED_AGAIN_S", -1.0)
    assert [item.number for item in review.take("s", 8)] == [6]


def test_a_copy_of_a_decided_picture_is_not_asked_for(open_review: Open, kept: Path):
    shutil.copy(kept / next(kept.glob("*000000*.png")).name, kept / "zz.png")
    review = open_review()
    decide(review, take(review))
    assert [item.number for item in review.take("s", 8)] == [1, 2, 3, 4, 5]
    assert review.counts()["open"] == 5


def test_a_picture_that_is_gone_or_changed_is_told_of(open_review: Open, kept: Path, data_set: Path):
    review = open_review()
    gone, changed = take(review), take(review)
    (kept / gone.name).unlink()
    write_picture(kept / changed.name, seed=99)
    with pytest.raises(DataError, match="cannot be read"):
        decide(review, gone)
    with pytest.raises(DataError, match="was changed while it was shown"):
        decide(review, changed)
    again = take(review)
    assert (again.number, again.shown.sha256 == changed.shown.sha256) == (changed.number, False)
    next(kept.glob("*000002*.png")).unlink()
    assert take(review).number == 3  # the third is passed over
    assert not in_data_set(data_set)


def test_a_broken_picture_can_only_be_skipped(open_review: Open, kept: Path):
    picture = next(kept.glob("*000000*.png"))
    picture.write_bytes(picture.read_bytes()[:200])
    review = open_review()
    item = take(review)
    assert item.shown.preview is None
    assert "truncated, damaged" in str(item.shown.fault)
    with pytest.raises(DataError, match="skip it"):
        decide(review, item)
    decide(review, item, "skip")


def test_plain_pictures_of_any_name_and_depth(open_review: Open, data_set: Path, tmp_path: Path):
    folder = tmp_path / "plain"
    names = ["a/x.png", "b/x.jpg", "<b>&.png", "n" * 240 + ".png", os.fsdecode(b"\xff.png"), "\u202e.png"]
    for seed, name in enumerate(names):
        write_picture(folder / name, seed=seed)
    review = open_review(folder)
    items = review.take("s", 8)
    assert [item.shown.said.score for item in items] == [None] * 6
    for item in items:
        decide(review, item, "defect", kind="dent", mask=square())
    samples = load_category(data_set, None).test if (data_set / "train").exists() else ()
    assert samples == ()
    shutil.copytree(folder / "a", data_set / "train/good")
    samples = load_category(data_set, None).test
    assert [sample.mask_fault for sample in samples] == [None] * 6
    assert all(sample.mask is not None for sample in samples)
    again = open_review(folder)
    assert again.take("s", 8) == []


@pytest.mark.parametrize("kind", ["", "..", "../up", "a/b", "/abs", ".hidden", "good", "OK", "a\nb\0", "x" * 61, "<b>"])
def test_no_folder_is_called_so(open_review: Open, data_set: Path, kind: str):
    review = open_review()
    with pytest.raises(ConfigError, match="kind of a defect"):
        decide(review, take(review), "defect", kind=kind)
    assert not in_data_set(data_set)


def test_a_kind_is_spelt_as_it_was_before(open_review: Open):
    review = open_review()
    decide(review, take(review), "defect", kind="Dent")
    assert decide(review, take(review), "defect", kind="dent").kind == "Dent"
    assert review.kinds() == ["Dent"]


@pytest.mark.parametrize("mask", [b"no picture", square((48, 48))])
def test_a_mask_of_something_else_is_refused(open_review: Open, data_set: Path, mask: bytes):
    review = open_review()
    with pytest.raises(ImageError):
        decide(review, take(review), "defect", kind="dent", mask=mask)
    assert not in_data_set(data_set)


@pytest.mark.parametrize("size", [2000, 12_000])
def test_a_full_disk_leaves_no_half_of_a_decision(open_review: Open, data_set: Path, size: int):
    """It is full at the picture, and at the log's line."""
    review = open_review()
    for _ in range(2):
        decide(review, take(review), "defect", kind="dent", mask=square())
    if size > 10_000:  # so that the line does not fit, and all else does
        with (data_set / LOG).open("ab") as log:
            log.write(b" " * (size - 100 - log.tell()))
    before, item = tree(data_set), take(review)
    with files_up_to(size), pytest.raises(OutputError, match="ulimit"):
        decide(review, item, "defect", kind="scratch", mask=square())
    assert tree(data_set) == before
    assert review.kinds() == ["dent"]
    assert review.item(item.number).decision is None


@pytest.mark.parametrize("where", ["stage", "finish", "take_back"])
def test_a_kill_at_any_moment_leaves_a_whole_decision_or_none(
    open_review: Open, data_set: Path, monkeypatch: pytest.MonkeyPatch, where: str
):
    review = open_review()
    item = take(review)
    decide(review, item)
    content = (data_set / "train/good" / item.name).read_bytes()
    real = getattr(review._data_set, where)

    def killed(*arguments: object, **options: object) -> None:
        if where == "stage":
            real(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(review._data_set, where, killed)
    with pytest.raises(KeyboardInterrupt):
        decide(review, review.item(item.number), "defect", kind="dent", mask=square())
    again = open_review()
    decision = again.item(item.number).decision
    assert decision is not None
    expected = {f"train/good/{item.name}"} if where == "stage" else set(decision.files)
    assert in_data_set(data_set) == expected
    assert (data_set / decision.files[0]).read_bytes() == content
    assert not list(data_set.rglob(".review-*"))


def test_half_a_line_of_the_log_is_cut_off_and_a_damaged_one_refused(open_review: Open, data_set: Path):
    review = open_review()
    decide(review, take(review))
    with (data_set / LOG).open("ab") as log:
        log.write(b'{"seq": 2, "ti')
    assert len(open_review().decisions) == 1
    whole = (data_set / LOG).read_text()
    for line, words in (
        ('{"seq": 2}', "line 2.* remove that line"),
        (whole.replace("train/", r"\\x2e./"), "names the file"),
    ):
        (data_set / LOG).write_text(f"{whole}{line}\n")
        with pytest.raises(DataError, match=words):
            open_review()


@pytest.mark.parametrize("name", ["", " ", "x" * 61, "a\0b"])
def test_nobody_is_called_so(open_review: Open, name: str):
    review = open_review()
    with pytest.raises(ConfigError, match="reviewer's name"):
        decide(review, take(review), reviewer=name)


def test_other_layouts_and_the_folder_itself_are_refused_as_data_sets(kept: Path, tmp_path: Path):
    (tmp_path / "other/Train").mkdir(parents=True)
    for root, words in (
        (kept, "only read"),
        (kept / "in/it", "only read"),
        (tmp_path / "other", "MVTec AD's layout"),
        (tmp_path, "layout"),
    ):
        with pytest.raises(DataError, match=words):
            Review(kept, root, test_share=0, labelme=False)
    with pytest.raises(OutputError, match="no folder"):
        (tmp_path / "file").touch()
        Review(kept, tmp_path / "file" / "x", test_share=0, labelme=False)
