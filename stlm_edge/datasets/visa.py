"""VisA's layout and its own one-class split (Zou et al. 2022), `split_csv/1cls.csv`.

The split names each picture and mask by its path from VisA's folder:

    object,split,label,image,mask
    candle,train,normal,candle/Data/Images/Normal/0000.JPG,
    candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png

Its masks hold the numbers of defect classes (1, 2, …), not 255. The split does not tell the kinds of defects, so all
have the label `anomaly`.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from stlm_edge.datasets.listing import by_number
from stlm_edge.datasets.samples import ANOMALY, GOOD, Category, Sample
from stlm_edge.errors import DataError

SPLIT = Path("split_csv") / "1cls.csv"

COLUMNS = ("object", "split", "label", "image", "mask")
LABELS = {"normal": GOOD, "anomaly": ANOMALY}


@dataclass(frozen=True)
class SplitRow:
    """One line of the split."""

    line: int
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
    """Raises `DataError` if the split or a file that it names is missing or damaged."""
    path = folder / SPLIT
    rows = _rows(folder)
    mine = [row for row in rows if row.category == category]
    if not mine:
        known = sorted({row.category for row in rows}, key=by_number)
        raise DataError(f"{path} has no category {category!r}, found {', '.join(known)}; give one that is there")
    samples = [(row.split, _sample(folder, row)) for row in mine]
    named = [file for _, sample in samples for file in (sample.path, sample.mask) if file is not None]
    missing = [file for file in named if not file.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(named)} files that {path} names for {category} are missing, the first is "
            f"{missing[0]}; unpack the data set again"
        )
    train = _sorted([sample for split, sample in samples if split == "train"])
    if not train:
        raise DataError(f"{path} has no pictures to train on for {category}; unpack the data set again")
    return Category(category, train, _sorted([sample for split, sample in samples if split == "test"]))


def _sample(folder: Path, row: SplitRow) -> Sample:
    label = LABELS[row.label]
    mask = folder / row.mask if label != GOOD else None
    return Sample(folder / row.image, label, mask, mask_of_classes=mask is not None)


def _rows(folder: Path) -> list[SplitRow]:
    path = folder / SPLIT
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            absent = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if absent:
                raise DataError(
                    f"{path} lacks the columns {', '.join(absent)}, expected {', '.join(COLUMNS)}; fetch it again"
                )
            rows = [SplitRow(reader.line_num, *(record[name] or "" for name in COLUMNS)) for record in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as VisA's split ({error}); fetch it again") from None
    for row in rows:
        _check(path, row)
    return rows


def _check(path: Path, row: SplitRow) -> None:
    place = f"{path}, line {row.line}:"
    if row.split not in ("train", "test") or row.label not in LABELS:
        raise DataError(
            f"{place} found {row.split!r} and {row.label!r}, expected train or test, and {' or '.join(LABELS)}; "
            "fetch it again"
        )
    if row.split == "train" and row.label == "anomaly":
        raise DataError(f"{place} found an anomaly to train on, expected good pictures only; use the one-class split")
    if not row.image or (row.label == "anomaly" and not row.mask):
        raise DataError(f"{place} found no path of the picture or of its mask; fetch it again")


def _sorted(samples: list[Sample]) -> tuple[Sample, ...]:
    return tuple(sorted(samples, key=lambda sample: (sample.label, sample.path)))
