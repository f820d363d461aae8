"""Which pictures are to be inspected, and by what names they and their overlays stand in the results."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.batch.table import CHECKSUMS, OVERLAYS, RECORD, TABLE
from stlm_edge.datasets import GOOD
from stlm_edge.errors import SourceError
from stlm_edge.folders import SUFFIXES, is_file, is_folder, pictures_below
from stlm_edge.names import escaped, fitted


@dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        path: where it is.
        name: its path below the folder that all pictures have in common, with `/`.
        label: `good` or the kind of defect where the folders say so as in MVTec AD, else None.
    """

    path: Path
    name: str
    label: str | None


@dataclass(frozen=True)
class Listing:
    """All pictures, in the order of the inputs and below them of the paths, each once.

    Attributes:
        root: the folder that they have in common, absolute.
    """

    root: Path
    pictures: tuple[Picture, ...]


def list_pictures(inputs: Sequence[Path], *, results: Path) -> Listing:
    """Pictures of files and folders; nothing is opened.

    Args:
        inputs: a file is taken whatever its suffix, a folder with all below it.
        results: folder of the results, whose overlays are not inspected again.
    Raises:
        SourceError: if an input does not exist, there is no picture, or a folder of masks is among them.
        DataError: if a folder cannot be read.
    """
    for path in inputs:
        if not (is_file(path) or is_folder(path)):
            found = "is neither a file nor a folder" if os.path.lexists(path) else "does not exist"
            raise SourceError(f"{path} {found}, expected a picture or a folder of pictures; check the path")
    paths = list(dict.fromkeys(_absolute(path) for given in inputs for path in _below(given, results=results)))
    if not paths:
        raise SourceError(f"{', '.join(map(str, inputs))} holds no picture, expected one of {SUFFIXES}")
    root = Path(os.path.commonpath([_absolute(path if path.is_dir() else path.parent) for path in inputs]))
    labelled: dict[Path, bool] = {}
    pictures = []
    for path in paths:
        above = path.parent.parent
        if above not in labelled:
            labelled[above] = (above / GOOD).is_dir()
        label = escaped(path.parent.name) if labelled[above] else None
        pictures.append(Picture(path, path.relative_to(root).as_posix(), label))
    return Listing(root, tuple(pictures))


def overlay_names(names: Iterable[str]) -> dict[str, str]:
    """Where the overlay of each picture lies below the folder of overlays: that of `a/x.png` at `a/x.jpg`.

    Pictures of one folder that would share it, as x.png and x.bmp, keep their own suffix: `x.png.jpg` and `x.bmp.jpg`.
    Upper and lower case count as the same there, as some file systems have it. A name that is too long ends in a hash.

    Args:
        names: of all pictures whose overlays may lie there, with `/`.
    """
    parts = {name: name.rpartition("/")[::2] for name in names}
    shorts = {name: (folder, file.rpartition(".")[0] or file) for name, (folder, file) in parts.items()}
    wanted = Counter((folder, file.casefold()) for folder, file in shorts.values())
    whole = {(folder, file.casefold()) for folder, file in parts.values()}
    found = {}
    for name, (folder, file) in shorts.items():
        place = (folder, file.casefold())
        # What is another's whole name could be the name that it keeps.
        chosen = file if wanted[place] == 1 and place not in whole else parts[name][1]
        found[name] = f"{folder}/{fitted(chosen, suffix='.jpg')}" if folder else fitted(chosen, suffix=".jpg")
    return found


def _below(path: Path, *, results: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for file in pictures_below(path, leave_out=[results / name for name in (OVERLAYS, TABLE, RECORD, CHECKSUMS)]):
        if "ground_truth" in file.relative_to(path).parts:
            raise SourceError(
                f"{path} holds masks ({file}), expected pictures of parts alone; give its folders 'test' instead"
            )
        yield file


def _absolute(path: Path) -> Path:
    """Without `..`, and with the names that the user gave: links are not followed."""
    return Path(os.path.abspath(path))  # noqa: PTH100  # Path.absolute keeps `..`
