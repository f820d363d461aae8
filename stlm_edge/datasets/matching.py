"""Which mask is which picture's, by their names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stlm_edge.folders import entries, is_folder, is_picture

_ENDING = re.compile(r"_(mask|label|gt)$", re.IGNORECASE)
"""Of a mask's name without its suffix; a mask may also have its picture's own name."""


@dataclass(frozen=True)
class Matched:
    """The masks of a folder.

    Attributes:
        masks: name of the picture without its suffix → its masks, sorted.
        strays: folders, and files with the name of a mask, that belong to no picture or cannot be one's mask.
        names: how many pictures have a name without its suffix.
        unread: name of the picture without its suffix → a stray with the name of its mask that is a file of a kind
            that is not read, such as GIF.
    """

    masks: dict[str, list[Path]]
    strays: tuple[Path, ...]
    names: Counter[str]
    unread: dict[str, Path]

    def of(self, picture: Path) -> list[Path]:
        return self.masks.get(picture.stem, [])

    def fault_of(self, picture: Path) -> str | None:
        """Why nobody can say which mask is a picture's; None where there is one at most, and that is its alone."""
        masks = self.of(picture)
        if len(masks) > 1:
            named = " and ".join(mask.name for mask in masks)
            return f"{picture} has {len(masks)} masks, {named} in {masks[0].parent}; keep one of them"
        if masks and self.names[picture.stem] > 1:
            return (
                f"{picture} is one of {self.names[picture.stem]} pictures called {picture.stem} that {masks[0]} may be "
                "the mask of; rename or remove the others"
            )
        return None

    def unread_fault_of(self, picture: Path) -> str | None:
        """Why the only mask of a picture cannot be used, if it is of a kind that nobody reads."""
        mask = self.unread.get(picture.stem)
        if mask is None or self.of(picture):
            return None
        return f"{mask}, the mask of {picture.name}, is of a kind that is not read here; convert it to PNG"


def match_masks(pictures: Sequence[Path], folder: Path) -> Matched:
    """Find the masks of all pictures of one folder; there may be none, nor a folder. Raises `DataError`."""
    masks: dict[str, list[Path]] = {picture.stem: [] for picture in pictures}
    strays, unread = [], {}
    for path in entries(folder) if is_folder(folder) else ():
        short = _ENDING.sub("", path.stem)
        owner = path.stem if path.stem in masks else short if short in masks else None
        if is_picture(path) and owner is not None:
            masks[owner].append(path)
        elif is_picture(path) or is_folder(path) or owner is not None:
            strays.append(path)
            if owner is not None and not is_folder(path):
                unread[owner] = path
    return Matched(masks, tuple(strays), Counter(picture.stem for picture in pictures), unread)
