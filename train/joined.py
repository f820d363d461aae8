"""Two sets of pictures as one: what a run was trained and tested on, and what was added since, in a folder of links."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stlm_edge.datasets import GOOD, Category, Sample, check_masks, read_truth
from stlm_edge.errors import DataError, ImageError, counted
from stlm_edge.files import cannot_write, folder_beside, make_folder
from stlm_edge.imaging import read_image, write_image
from stlm_edge.names import unescaped
from stlm_edge.seen import digest_of
from stlm_edge.spec import Size

logger = logging.getLogger(__name__)

READERS = 4


@dataclass(frozen=True)
class _Place:
    """Where a picture goes, `train/good/NAME` or `test/KIND/NAME`, in MVTec AD's layout."""

    sample: Sample
    path: Path
    is_added: bool

    @property
    def mask(self) -> Path:
        suffix = ".png" if self.sample.mask is None or self.sample.mask_of_classes else self.sample.mask.suffix
        return Path("ground_truth", self.path.parent.name, f"{self.path.stem}_mask{suffix}")


@dataclass(frozen=True)
class Joined:
    """Pictures of both sets, none of them twice.

    Attributes:
        places: of all, the old ones first.
        repeated: how many of the added ones are there already, with the same label.
    """

    places: tuple[_Place, ...]
    repeated: int

    def count(self, split: str, *, added: bool) -> int:
        """Args: split: `train` or `test`."""
        return sum(place.path.parts[0] == split and place.is_added == added for place in self.places)

    def test(self, folder: Path, *, added: bool) -> set[Path]:
        """The paths of test pictures below `folder`."""
        return {
            folder / place.path for place in self.places if place.path.parts[0] == "test" and place.is_added == added
        }

    def write(self, folder: Path) -> None:
        """Make the folder of a category, whole or not at all: links to the pictures, or copies where there are none.

        One that is there already is of these pictures, or refused.

        Raises:
            DataError: if it is there and holds others.
            OutputError: if it cannot be written.
        """
        wanted = {place.path for place in self.places}
        if folder.exists():
            found = {path.relative_to(folder) for split in ("train", "test") for path in (folder / split).glob("*/*")}
            if found != wanted:
                raise DataError(
                    f"{folder} was begun with {counted(len(found), 'picture')}, found {len(wanted)} now, or others; "
                    "give the same ones, or another folder with --output"
                )
            return
        make_folder(folder.parent)
        try:
            with folder_beside(folder) as beside:
                root = beside / "joined"
                for place in self.places:
                    _link(place.sample.path, root / place.path)
                    if place.sample.mask is not None and place.sample.label != GOOD:
                        _put_mask(place, root / place.mask)
                root.rename(folder)
        except OSError as error:
            raise cannot_write(folder, error) from error


def join(old: Category, added: Category, *, skip_corrupt: bool) -> Joined:
    """Pictures of both; those that come twice with one label once.

    Raises:
        DataError: if a picture is to be learnt from and tested with, or has two labels; its names are told.
        ImageError: if one cannot be read, unless `skip_corrupt`: then it is left out, for the training to tell.
    """
    check_masks([*old.test, *added.test])
    samples = [(*each, False) for each in _of(old)] + [(*each, True) for each in _of(added)]
    seen = _seen([sample for sample, *_ in samples], skip_corrupt=skip_corrupt)
    sized = [(each[1], is_added) for each, (*_, is_added) in zip(seen, samples, strict=True) if each]
    _tell_of_other_sizes({size for size, is_added in sized if not is_added}, [size for size, new in sized if new])
    first: dict[str, tuple[str, Sample]] = {}
    twice: list[str] = []
    taken: set[tuple[str, str, str]] = set()
    places: list[_Place] = []
    repeated = 0
    for (sample, split, is_added), each in zip(samples, seen, strict=True):
        if each is None:
            continue
        digest, _ = each
        if digest in first:
            known_split, known = first[digest]
            if (known_split, known.label) != (split, sample.label):
                twice.append(f"{known.path} and {sample.path}")
            repeated += is_added
            continue
        first[digest] = split, sample
        label = unescaped(sample.label)
        stem = number = sample.path.stem
        count = 1
        while (split, label, number) in taken:
            count += 1
            number = f"{stem}-{count}"
        taken.add((split, label, number))
        places.append(_Place(sample, Path(split, label, number + sample.path.suffix), is_added))
    if twice:
        raise DataError(
            f"found {counted(len(twice), 'picture')} among those to learn from and those to test, or with two labels, "
            f"expected each once ({'; '.join(twice[:3])}{'; …' if len(twice) > 3 else ''}); remove one of each pair"
        )
    return Joined(tuple(places), repeated)


def _of(category: Category) -> Iterator[tuple[Sample, str]]:
    yield from ((sample, "train") for sample in category.train)
    yield from ((sample, "test") for sample in category.test)


def _seen(samples: Sequence[Sample], *, skip_corrupt: bool) -> list[tuple[str, Size] | None]:
    """The digest of each picture's pixels, and its size; None for one that is left out."""

    def read(sample: Sample) -> tuple[str, Size] | None:
        try:
            image = read_image(sample.path)
        except ImageError:
            if not skip_corrupt:
                raise
            return None
        return digest_of(image), (image.shape[0], image.shape[1])

    with ThreadPoolExecutor(READERS) as readers:
        return list(readers.map(read, samples))


def _tell_of_other_sizes(before: set[Size], added: Sequence[Size]) -> None:
    others = [size for size in added if size not in before]
    if len(before) == 1 and others:
        (height, width), other = *before, others[0]
        logger.warning(
            "OTHER SIZE: %s added, such as of %d x %d pixels, not of %d x %d as all before; each is brought to the "
            "network's input, so another crop looks like another part",
            counted(len(others), "picture"),
            *other,
            height,
            width,
        )


def _link(source: Path, target: Path) -> None:
    """To the file itself, so that a chain of retrainings does not become one of links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    whole = Path(os.path.realpath(source))
    try:
        target.symlink_to(whole)
    except OSError:  # no such thing on this file system
        shutil.copyfile(whole, target)


def _put_mask(place: _Place, target: Path) -> None:
    sample = place.sample
    assert sample.mask is not None
    if not sample.mask_of_classes:
        _link(sample.mask, target)
        return
    image = read_image(sample.path)
    mask = read_truth(sample, size=(image.shape[0], image.shape[1]))
    assert mask is not None
    target.parent.mkdir(parents=True, exist_ok=True)
    write_image(target, np.where(mask > 0, 255, 0).astype(np.uint8)[..., None].repeat(3, axis=2))
