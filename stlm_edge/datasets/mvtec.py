"""MVTec AD's layout: `train/good/*`, `test/<kind>/*`, `ground_truth/<kind>/NAME_mask.png`.

The folders of `test` are the labels. Masks may be missing, as a whole or of some pictures: whatever needs labels alone
goes on. They may also have their picture's own name or end in `_label` or `_gt`, and have any suffix of pictures.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from stlm_edge.datasets.listing import folders, found_folders, has_folder
from stlm_edge.datasets.matching import Matched, match_masks
from stlm_edge.datasets.samples import GOOD, Category, Sample
from stlm_edge.errors import DataError
from stlm_edge.folders import is_file, pictures_in
from stlm_edge.names import escaped

_OTHER_WORDS = ("good", "ok", "normal")
"""Folders of `test` that hold good pictures under a name that this layout would take for a kind of defect."""


def is_mvtec(root: Path) -> bool:
    return "train" in folders(root)


def load_mvtec(root: Path, name: str) -> Category:
    """Raises `DataError` if there is no good picture to train on, or the good ones to test are not called `good`."""
    return Category(name, _train_samples(root), _test_samples(root))


def labelled_by_folder(paths: Iterable[Path]) -> list[Sample | None]:
    """What this layout says of each picture from the folder it lies in; None outside of such a layout.

    The folders are taken by the names they were given by, and where these say nothing by what they link to.
    """
    known: dict[Path, dict[Path, Sample]] = {}
    found = []
    for path in paths:
        if path.parent not in known:
            known[path.parent] = {sample.path: sample for sample in _samples_in(path.parent)}
        found.append(known[path.parent].get(path))
    return found


def _samples_in(folder: Path) -> Iterator[Sample]:
    for place in (Path(os.path.abspath(folder)), folder.resolve()):  # noqa: PTH100  # Path.absolute keeps `..`
        kind, split = place.name, place.parent
        root = split.parent
        if split.name == "train" and kind == GOOD:
            return (Sample(path, GOOD, None) for path in pictures_in(folder))
        beside = (root / "ground_truth", root / "train", split / GOOD)
        if split.name == "test" and any(each.is_dir() for each in beside):
            return _labelled(pictures_in(folder), kind, root)
    return iter(())


def _train_samples(root: Path) -> tuple[Sample, ...]:
    folder = root / "train" / GOOD
    good = pictures_in(folder, tell_of_those_below=True) if has_folder(folder) else []
    if not good:
        raise DataError(
            f"{folder} has no good pictures to train on, {found_folders(folders(root / 'train'))} in {root / 'train'}; "
            f"put pictures of good parts into {folder}"
        )
    return tuple(Sample(path, GOOD, None) for path in good)


def _test_samples(root: Path) -> tuple[Sample, ...]:
    test = root / "test"
    kinds = folders(test) if has_folder(test) else []
    pictures = {kind: pictures_in(test / kind, tell_of_those_below=True) for kind in kinds}
    return tuple(sample for kind in kinds for sample in _labelled(pictures[kind], kind, root))


def _labelled(paths: Sequence[Path], kind: str, root: Path) -> Iterator[Sample]:
    """All pictures of one folder of `test`, with the masks that are there."""
    if kind != GOOD and kind.casefold() in _OTHER_WORDS:
        raise DataError(
            f"{root / 'test' / kind} would be a kind of defect, expected good pictures in {root / 'test' / GOOD}; "
            "rename the folder"
        )
    truth = root / "ground_truth" / kind
    misspelt = _misspelt(root / "ground_truth") or _misspelt(truth)
    matched = match_masks(paths, truth)
    for path in paths:
        masks = matched.of(path)
        fault = matched.fault_of(path) or _fault_of_folder(path, kind, truth, misspelt, matched)
        yield Sample(path, escaped(kind), masks[0] if masks else None, mask_fault=fault)


def _fault_of_folder(path: Path, kind: str, truth: Path, misspelt: Path | None, matched: Matched) -> str | None:
    """What is wrong with the folder that should hold a picture's mask; None if nothing is."""
    expected = truth / (path.stem + "_mask.png")
    taken = next((place for place in (truth.parent, truth) if is_file(place)), None)
    if taken is not None and kind != GOOD:
        return f"{path} has no mask, expected {expected}, but {taken} is a file and no folder; move it away"
    if misspelt is not None and kind != GOOD:
        return f"{path} has no mask, expected {expected}; rename the folder {misspelt}"
    if truth / path.stem in matched.strays:
        return (
            f"{truth / path.stem} is a folder, as in MVTec LOCO, expected one mask for each picture; join what it "
            f"holds into {expected}, or remove {truth} and judge whole pictures alone"
        )
    if kind != GOOD and (unread := matched.unread_fault_of(path)) is not None:
        return unread
    if not matched.of(path) and matched.strays and kind != GOOD:
        return (
            f"{path} has no mask, expected {expected}, while {truth} holds what belongs to no picture, such as "
            f"{matched.strays[0].name}; rename the masks, or remove those and judge whole pictures alone"
        )
    return None


def _misspelt(folder: Path) -> Path | None:
    """A folder in the place of a missing one whose name differs from it in capitals, lines and blanks alone."""
    if folder.is_dir() or not folder.parent.is_dir():
        return None
    wanted = _letters(folder.name)
    return next((folder.parent / name for name in folders(folder.parent) if _letters(name) == wanted), None)


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name)).casefold()
