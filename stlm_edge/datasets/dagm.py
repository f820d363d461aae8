"""DAGM 2007's layout (Wieler and Hahn), split as the paper does (4.1.1).

    Class1/Train/0576.PNG   Class1/Train/Label/0577_label.PNG   Class1/Train/Label/Labels.txt
    Class1/Test/0001.PNG    Class1/Test/Label/0002_label.PNG    Class1/Test/Label/Labels.txt

A picture is defective if it has a mask; where there are none at all, if `Labels.txt` says so. The masks are coarse
ellipses, wider than the defects. The published split has defective pictures in both halves, so the paper makes another
one: every defective picture is tested; of the good ones 30, chosen at random, are tested as well; the others are
trained on. Which 30 the authors had is not known.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from stlm_edge.datasets.listing import folders, found_folders, has_folder, read_text
from stlm_edge.datasets.matching import match_masks
from stlm_edge.datasets.samples import ANOMALY, GOOD, Category, Sample
from stlm_edge.errors import DataError
from stlm_edge.folders import pictures_in

DAGM_SEED = 0
"""Which good pictures are tested; the same seed chooses the same ones, on any machine and with any library."""

GOOD_TEST_PICTURES = 30

HALVES = ("Train", "Test")
_LABELS = Path("Label") / "Labels.txt"


def is_dagm(root: Path) -> bool:
    return "Train" in folders(root)


def load_dagm(root: Path, name: str, *, seed: int) -> Category:
    """Split one class.

    Raises:
        DataError: if a half or its labels are missing, masks and `Labels.txt` disagree, a mask is that of no picture,
            or there are not more than 30 good pictures.
    """
    good: list[Sample] = []
    defective: list[Sample] = []
    for sample in (sample for half in HALVES for sample in _labelled(root, half)):
        (good if sample.label == GOOD else defective).append(sample)
    if len(good) <= GOOD_TEST_PICTURES:
        raise DataError(
            f"{root} has {len(good)} good pictures, expected more than {GOOD_TEST_PICTURES}, which the paper's split "
            "takes for the test; unpack the data set again"
        )
    # Ordered by hashes and not shuffled by a generator, whose stream may change from one version of numpy to the next.
    drawn = sorted(good, key=lambda sample: _lot(seed, sample.path))
    tested, trained = drawn[:GOOD_TEST_PICTURES], drawn[GOOD_TEST_PICTURES:]
    return Category(name, _sorted(trained), (*_sorted(defective), *_sorted(tested)))


def _labelled(root: Path, half: str) -> list[Sample]:
    """Each picture of one half."""
    folder = root / half
    label_folder = folder / "Label"
    if not has_folder(label_folder):
        raise DataError(
            f"{label_folder} does not exist, {found_folders(folders(root))} in {root}; DAGM's layout needs Train, "
            "Train/Label, Test and Test/Label to tell good from defective, MVTec AD's is spelt train/good and test: "
            "unpack the data set again or rename"
        )
    found = pictures_in(folder)
    if not found:
        raise DataError(f"{folder} has no pictures; unpack the data set again")
    matched = match_masks(found, label_folder)
    for path in found:
        if (fault := matched.unread_fault_of(path)) is not None:
            raise DataError(fault)
    if matched.strays:
        more = len(matched.strays) - 1
        raise DataError(
            f"{matched.strays[0]} is the mask of no picture in {folder}{f', nor are {more} more' if more else ''}; "
            f"a picture is defective if it has a mask, expected {found[0].stem}_label{found[0].suffix} for "
            f"{found[0].name}: rename or remove the masks, or unpack the data set again"
        )
    text = folder / _LABELS
    named = _named(text) if text.is_file() else {}
    has_masks = any(matched.masks.values())
    absent = sorted(name for name, is_defective in named.items() if is_defective and name not in matched.masks)
    if absent:
        raise DataError(f"{text} names {absent[0]} as defective, which is not in {folder}; unpack the data set again")
    if not has_masks and not text.is_file():
        raise DataError(
            f"{label_folder} holds neither masks nor Labels.txt, expected either, which tell good from defective; "
            "unpack the data set again"
        )
    unnamed = [path for path in found if path.stem not in named]
    if text.is_file() and not has_masks and unnamed:
        raise DataError(
            f"{text} does not name {len(unnamed)} of {len(found)} pictures of {folder}, such as {unnamed[0].name}, and "
            "there are no masks that would tell good from defective; unpack the data set again"
        )
    faults = [fault for path in found if (fault := matched.fault_of(path)) is not None]
    if faults:
        raise DataError(faults[0])
    return [_sample(path, matched.of(path), named.get(path.stem), text, has_masks=has_masks) for path in found]


def _sample(path: Path, masks: list[Path], is_named: bool | None, text: Path, *, has_masks: bool) -> Sample:
    """A picture with its label, which masks and `Labels.txt` must agree on; without any mask the text has the word."""
    if masks and is_named is False:
        raise DataError(
            f"{path} is good by {text} but has the mask {masks[0].name}; correct the text or remove the mask"
        )
    if has_masks and is_named and not masks:
        raise DataError(
            f"{path} is defective by {text} but has no mask, expected "
            f"{text.parent / (path.stem + '_label' + path.suffix)}; unpack the data set again"
        )
    return Sample(path, ANOMALY if masks or is_named else GOOD, masks[0] if masks else None)


def _named(path: Path) -> dict[str, bool]:
    """Name without suffix → whether it is defective, by lines of number, 0 or 1, picture, 0 or 1, mask."""
    try:
        lines = [re.split(r"[\s,;]+", line.strip()) for line in read_text(path).splitlines()]
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error}); unpack the data set again") from None
    named: dict[str, bool] = {}
    for number, fields in enumerate(lines, start=1):
        if len(fields) == 1 and (not fields[0] or fields[0].isdecimal()):
            continue  # the first line has the number of the class
        if len(fields) < 3 or fields[1] not in ("0", "1"):
            raise DataError(
                f"{path}, line {number}: found {' '.join(fields)[:80]!r}, expected number, 0 or 1, and the picture's "
                "name; unpack the data set again"
            )
        name, is_defective = Path(fields[2]).stem, fields[1] == "1"
        if named.setdefault(name, is_defective) != is_defective:
            raise DataError(f"{path}, line {number}: {name} is good in one line and defective in another; correct it")
    return named


def _lot(seed: int, picture: Path) -> bytes:
    """What decides whether a good picture is tested: half and name, not where the data set lies."""
    return hashlib.sha256(f"{seed}/{picture.parent.name}/{picture.stem}".encode()).digest()


def _sorted(samples: list[Sample]) -> tuple[Sample, ...]:
    return tuple(sorted(samples, key=lambda sample: sample.path))
