"""Folders of pictures: the layout of MVTec AD, plain folders of good pictures, and trees of textures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stlm_edge.errors import DataError
from stlm_edge.imaging import IMAGE_SUFFIXES

GOOD = "good"

MASK_SUFFIXES = (".png", ".bmp", ".tif")


@dataclass(frozen=True)
class Sample:
    """One picture on disk.

    Attributes:
        path: of the picture.
        label: `good`, or the kind of defect.
        mask: of the ground truth, None for a good picture.
    """

    path: Path
    label: str
    mask: Path | None


@dataclass(frozen=True)
class Category:
    """The pictures of one part, sorted by label and name.

    Attributes:
        train: good pictures only.
        test: good and defective pictures; empty for a plain folder.
    """

    name: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]


def load_category(folder: Path, category: str | None) -> Category:
    """List the pictures of one part; none is opened.

    Two layouts are known: that of MVTec AD (`train/good/*`, `test/<kind>/*`, `ground_truth/<kind>/NAME_mask.png`)
    and a plain folder of good pictures. Hidden files and files that are not pictures are passed over.

    Args:
        folder: the data set's folder when `category` is given, otherwise the part's own folder.
        category: a folder below `folder`.
    Raises:
        DataError: if a folder or a mask is missing, or there is no good picture to train on.
    """
    _require_folder(folder)
    root = folder
    if category is not None:
        root = folder / category
        if not root.is_dir():
            raise DataError(
                f"{folder} has no category {category!r}, {_found(_folders(folder))}; give one that is there"
            )
    name = root.resolve().name
    if (root / "train").is_dir():
        return Category(name, _train_samples(root), _test_samples(root))
    pictures = _pictures(root)
    if not pictures:
        raise DataError(
            f"{root} has neither pictures ({', '.join(sorted(IMAGE_SUFFIXES))}) nor train/good/, "
            f"{_found(_folders(root))}; give a folder of good pictures, or a data set's folder and a category in it"
        )
    return Category(name, tuple(Sample(path, GOOD, None) for path in pictures), ())


def texture_paths(folder: Path) -> list[Path]:
    """All pictures below `folder` at any depth, sorted; the anomaly source, such as DTD's `images` (paper, 4.1.1).

    Raises:
        DataError: if the folder is missing or holds no picture.
    """
    _require_folder(folder)
    paths = sorted(
        path
        for path in folder.rglob("*")
        if _is_picture(path) and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not paths:
        raise DataError(
            f"{folder} has no pictures ({', '.join(sorted(IMAGE_SUFFIXES))}) at any depth; give another folder"
        )
    return paths


def _train_samples(root: Path) -> tuple[Sample, ...]:
    folder = root / "train" / GOOD
    pictures = _pictures(folder) if folder.is_dir() else []
    if not pictures:
        raise DataError(
            f"{folder} has no good pictures to train on, {_found(_folders(root / 'train'))} in {root / 'train'}; "
            f"put pictures of good parts into {folder}"
        )
    return tuple(Sample(path, GOOD, None) for path in pictures)


def _test_samples(root: Path) -> tuple[Sample, ...]:
    test = root / "test"
    kinds = _folders(test) if test.is_dir() else []
    return tuple(
        Sample(path, kind, None if kind == GOOD else _mask_of(path, root / "ground_truth" / kind))
        for kind in kinds
        for path in _pictures(test / kind)
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


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {found}, expected a folder of pictures; check the path")


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_picture(path))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _found(names: Iterable[str]) -> str:
    """Which folders there are, for a message."""
    return f"found the folders {', '.join(names)}" if names else "found no folder"
