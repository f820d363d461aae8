"""VisA's layout and its own one-class split (Zou et al. 2022), `split_csv/1cls.csv`.

The split names each picture and mask by its path from VisA's folder:

    object,split,label,image,mask
    candle,train,normal,candle/Data/Images/Normal/0000.JPG,
    candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png

Its masks hold the numbers of defect classes (1, 2, …), not 255; a defect without a mask has its label alone. The split
does not tell the kinds of defects, so all have the label `anomaly`.

A split that a spreadsheet or a script on Windows has written is read too, where there is one way to: semicolons or tabs
between the columns, columns in another order or more of them, backslashes in paths. It names nothing outside of its
folder. Links in that folder are followed: many data sets are links into a store, and whoever can make a link there
could as well put a picture there.
"""

from __future__ import annotations

import csv
import logging
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath

from stlm_edge.datasets.listing import by_number, read_text
from stlm_edge.datasets.samples import ANOMALY, GOOD, Category, Sample
from stlm_edge.datasets.table import TableError, table_rows
from stlm_edge.errors import DataError
from stlm_edge.folders import is_file

logger = logging.getLogger(__name__)

SPLIT = Path("split_csv") / "1cls.csv"

COLUMNS: dict[str, tuple[str, ...]] = dict.fromkeys(("object", "split", "label", "image", "mask"), ())
_SPLITS = ("train", "test")
LABELS = {"normal": GOOD, "anomaly": ANOMALY}


@dataclass(frozen=True)
class SplitRow:
    """One line of the split. Attributes: image, mask: paths from VisA's folder; mask is empty where there is none."""

    category: str
    split: str
    label: str
    image: str
    mask: str


def is_visa(folder: Path) -> bool:
    return (folder / SPLIT).is_file()


def is_visa_category(root: Path) -> bool:
    """A part's own folder, which needs the split beside it."""
    return (root / "Data" / "Images").is_dir()


def visa_categories(folder: Path) -> list[str]:
    """Raises `DataError` if the split cannot be read."""
    return sorted({row.category for row in _rows(folder)}, key=by_number)


def load_visa(folder: Path, category: str) -> Category:
    """Raises `DataError` if the split is damaged or a picture that it names is missing."""
    path = folder / SPLIT
    rows = _rows(folder)
    mine = [row for row in rows if row.category == category]
    if not rows:
        raise DataError(f"{path} names no pictures; fetch it again")
    if not mine:
        known = sorted({row.category for row in rows}, key=by_number)
        raise DataError(f"{path} has no category {category!r}, found {', '.join(known)}; give one that is there")
    missing = [folder / row.image for row in mine if not is_file(folder / row.image)]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(mine)} pictures that {path} names for {category} are missing, the first is "
            f"{missing[0]}; unpack the data set again"
        )
    owners = Counter(mask for _, mask in {(row.image, row.mask) for row in mine if row.label == "anomaly" and row.mask})
    samples = {split: [_sample(folder, row, owners) for row in mine if row.split == split] for split in _SPLITS}
    train = _sorted(samples["train"])
    if not train:
        raise DataError(f"{path} has no pictures to train on for {category}; unpack the data set again")
    return Category(category, train, _sorted(samples["test"]))


def _sample(folder: Path, row: SplitRow, owners: Counter[str]) -> Sample:
    """A picture with its label and mask. Argument: owners: how many anomalies the split gives each mask to."""
    path, label, mask = folder / row.image, LABELS[row.label], folder / row.mask
    if not row.mask:
        return Sample(path, label, None)
    fault = None
    if not is_file(mask):
        fault = f"{path} has no mask, {folder / SPLIT} names {mask}, which is missing; unpack the data set again"
    elif owners[row.mask] > 1:
        fault = (
            f"{path} has the mask {mask}, which {folder / SPLIT} gives to {owners[row.mask]} pictures, expected a mask "
            "for each; correct it, or fetch the split again"
        )
    return Sample(path, label, mask, mask_of_classes=True, mask_fault=fault)


def _rows(folder: Path) -> list[SplitRow]:
    path = folder / SPLIT
    try:
        found = [(number, fields) for number, fields in table_rows(read_text(path), COLUMNS) if any(fields.values())]
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as VisA's split ({error}); fetch it again") from None
    except TableError as error:
        raise DataError(f"{path}{error}; correct it, or fetch it again") from None
    rows: dict[SplitRow, None] = {}
    by_image: dict[str, SplitRow] = {}
    for number, fields in found:
        try:
            row = _row(fields)
            first = by_image.setdefault(row.image, row)
            if replace(first, split=row.split) != row:
                raise TableError(f"found {row.image} a second time and with other words, expected each picture once")
        except TableError as error:
            raise DataError(f"{path}, line {number}: {error}; correct the line, or fetch the split again") from None
        rows[row] = None
    if len(rows) < len(found):
        logger.warning("%s says %d of its lines twice; each picture is taken once", path, len(found) - len(rows))
    if len(by_image) < len(rows):
        logger.warning(
            "TESTED ON TRAINING PICTURES: %s names %d of its pictures for both", path, len(rows) - len(by_image)
        )
    return list(rows)


def _row(fields: dict[str, str]) -> SplitRow:
    category, split, label = fields["object"], fields["split"].casefold(), fields["label"].casefold()
    if not category or category.startswith(".") or set("/\\") & set(category) or not category.isprintable():
        raise TableError(f"found {category!r} as the object, expected the name of a folder")
    if split not in _SPLITS or label not in LABELS:
        raise TableError(
            f"found {fields['split']!r} and {fields['label']!r}, expected train or test, and {' or '.join(LABELS)}"
        )
    if split == "train" and label == "anomaly":
        raise TableError("found an anomaly to train on, expected good pictures only, as in the one-class split")
    if not fields["image"]:
        raise TableError("found no path of the picture")
    return SplitRow(category, split, label, _inside(fields["image"]), _inside(fields["mask"]))


def _inside(text: str) -> str:
    """A path with `/`; whichever way it leaves the folder that it starts from, it is refused."""
    if not text:
        return ""
    windows = PureWindowsPath(text)
    path = PurePosixPath(windows.as_posix())
    if windows.drive or path.is_absolute() or ".." in path.parts or not text.isprintable():
        raise TableError(f"found the path {text!r}, expected one below VisA's folder, without ..")
    return str(path)


def _sorted(samples: list[Sample]) -> tuple[Sample, ...]:
    return tuple(sorted(samples, key=lambda sample: (sample.label, sample.path)))
