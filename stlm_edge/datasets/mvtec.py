"""MVTec AD's layout: `train/good/*`, `test/<kind>/*`, `ground_truth/<kind>/NAME_mask.png`."""

from __future__ import annotations

from pathlib import Path

from stlm_edge.datasets.listing import folders, found_folders, pictures
from stlm_edge.datasets.samples import GOOD, Category, Sample
from stlm_edge.errors import DataError

MASK_SUFFIXES = (".png", ".bmp", ".tif")


def is_mvtec(root: Path) -> bool:
    return "train" in folders(root)


def load_mvtec(root: Path, name: str) -> Category:
    """Raises `DataError` if there is no good picture to train on, or a defect has no mask."""
    return Category(name, _train_samples(root), _test_samples(root))


def sample_at(picture: Path) -> Sample | None:
    """What this layout says of one picture from where it lies; None outside of such a layout.

    A defect has no mask where there is no `ground_truth` at all. Raises `DataError` if only its own is missing.
    """
    picture = picture.resolve()
    kind, split = picture.parent.name, picture.parent.parent
    if split.name == "train" and kind == GOOD:
        return Sample(picture, GOOD, None)
    truth = split.parent / "ground_truth"
    beside = (truth, split.parent / "train", split / GOOD)
    if split.name != "test" or not any(folder.is_dir() for folder in beside):
        return None
    has_mask = kind != GOOD and truth.is_dir()
    return Sample(picture, kind, _mask_of(picture, truth / kind) if has_mask else None)


def _train_samples(root: Path) -> tuple[Sample, ...]:
    folder = root / "train" / GOOD
    good = pictures(folder) if folder.is_dir() else []
    if not good:
        raise DataError(
            f"{folder} has no good pictures to train on, {found_folders(folders(root / 'train'))} in {root / 'train'}; "
            f"put pictures of good parts into {folder}"
        )
    return tuple(Sample(path, GOOD, None) for path in good)


def _test_samples(root: Path) -> tuple[Sample, ...]:
    test = root / "test"
    kinds = folders(test) if test.is_dir() else []
    return tuple(
        Sample(path, kind, None if kind == GOOD else _mask_of(path, root / "ground_truth" / kind))
        for kind in kinds
        for path in pictures(test / kind)
    )


def _mask_of(picture: Path, folder: Path) -> Path:
    for suffix in MASK_SUFFIXES:
        mask = folder / f"{picture.stem}_mask{suffix}"
        if mask.is_file():
            return mask
    raise DataError(
        f"{picture} shows a defect but has no mask, expected {folder / (picture.stem + '_mask.png')}; "
        "add the mask or remove the picture"
    )
