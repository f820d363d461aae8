"""DAGM 2007's layout (Wieler and Hahn), split as the paper does (4.1.1).

    Class1/Train/0576.PNG   Class1/Train/Label/0577_label.PNG   Class1/Train/Label/Labels.txt
    Class1/Test/0001.PNG    Class1/Test/Label/0002_label.PNG    Class1/Test/Label/Labels.txt

A picture is defective if it has a mask. The masks are coarse ellipses, wider than the defects. The published split has
defective pictures in both halves, so the paper makes another one: every defective picture is tested; of the good ones
30, chosen at random, are tested as well; the others are trained on. Which 30 the authors had is not known.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from stlm_edge.datasets.listing import folders, found_folders, pictures
from stlm_edge.datasets.samples import ANOMALY, GOOD, Category, Sample
from stlm_edge.errors import DataError

DAGM_SEED = 0
"""Which good pictures are tested; the same seed chooses the same ones, on any machine and with any library."""

GOOD_TEST_PICTURES = 30

HALVES = ("Train", "Test")


def is_dagm(root: Path) -> bool:
    return "Train" in folders(root)


def load_dagm(root: Path, name: str, *, seed: int) -> Category:
    """Split one class.

    Raises:
        DataError: if a half, its labels or a mask is missing, or if there are not more than 30 good pictures.
    """
    good: list[Sample] = []
    defective: list[Sample] = []
    for half in HALVES:
        for path, mask in _labelled(root, half):
            if mask is None:
                good.append(Sample(path, GOOD, None))
            else:
                defective.append(Sample(path, ANOMALY, mask))
    if len(good) <= GOOD_TEST_PICTURES:
        raise DataError(
            f"{root} has {len(good)} good pictures, expected more than {GOOD_TEST_PICTURES}, which the paper's split "
            "takes for the test; unpack the data set again"
        )
    # Ordered by hashes and not shuffled by a generator, whose stream may change from one version of numpy to the next.
    drawn = sorted(good, key=lambda sample: _lot(seed, sample.path))
    tested, trained = drawn[:GOOD_TEST_PICTURES], drawn[GOOD_TEST_PICTURES:]
    return Category(name, _sorted(trained), (*_sorted(defective), *_sorted(tested)))


def _labelled(root: Path, half: str) -> list[tuple[Path, Path | None]]:
    """Each picture of one half with its mask, None where it is good."""
    folder = root / half
    label_folder = folder / "Label"
    if not label_folder.is_dir():
        raise DataError(
            f"{label_folder} does not exist, {found_folders(folders(root))} in {root}; DAGM's layout needs Train, "
            "Train/Label, Test and Test/Label to tell good from defective, MVTec AD's is spelt train/good and test: "
            "unpack the data set again or rename"
        )
    masks = {path.stem.removesuffix("_label"): path for path in pictures(label_folder)}
    found = [(path, masks.get(path.stem)) for path in pictures(folder)]
    if not found:
        raise DataError(f"{folder} has no pictures; unpack the data set again")
    named = _named_defective(label_folder / "Labels.txt")
    for path, mask in found:
        if mask is None and path.stem in named:
            raise DataError(
                f"{path} is defective by {label_folder / 'Labels.txt'} but has no mask, expected "
                f"{label_folder / (path.stem + '_label' + path.suffix)}; unpack the data set again"
            )
    return found


def _named_defective(path: Path) -> set[str]:
    """Names that `Labels.txt` calls defective: number, 0 or 1, picture, 0 or 1, mask. The file may be missing."""
    if not path.is_file():
        return set()
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}); unpack the data set again") from None
    return {Path(fields[2]).stem for fields in lines if len(fields) >= 3 and fields[1] == "1"}


def _lot(seed: int, picture: Path) -> bytes:
    """What decides whether a good picture is tested: half and name, not where the data set lies."""
    return hashlib.sha256(f"{seed}/{picture.parent.name}/{picture.stem}".encode()).digest()


def _sorted(samples: list[Sample]) -> tuple[Sample, ...]:
    return tuple(sorted(samples, key=lambda sample: sample.path))
