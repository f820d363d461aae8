"""The entries of a drop folder: which are files to read, and which were seen before, in 16 bytes for each of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stlm_edge.folders import has_picture_name, no_file

Hashes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SeenFiles:
    """Sorted hashes of file names (a set of names takes 100 bytes for each), and beside each that of size and time."""

    names: Hashes
    stamps: Hashes

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def none(cls) -> SeenFiles:
        return cls(np.empty(0, np.int64), np.empty(0, np.int64))

    @classmethod
    def of(cls, found: dict[int, int]) -> SeenFiles:
        names = np.fromiter(found, np.int64, len(found))
        stamps = np.fromiter(found.values(), np.int64, len(found))
        order = np.argsort(names)
        return cls(names[order], stamps[order])

    def stamps_of(self, names: Hashes) -> list[int | None]:
        """None for those that were not seen."""
        if not self.names.size:
            return [None] * len(names)
        places = np.minimum(np.searchsorted(self.names, names), self.names.size - 1)
        is_seen = (self.names[places] == names).tolist()
        return [stamp if seen else None for stamp, seen in zip(self.stamps[places].tolist(), is_seen, strict=True)]

    def stamp_before(self, name: str) -> int | None:
        """None if it was not seen."""
        return self.stamps_of(np.array([hash(name)]))[0]

    def stamp(self, name: str, status: os.stat_result) -> None:
        """Remember another size and time of a file that was seen."""
        self.stamps[self.names == hash(name)] = stamp_of(status)

    def without(self, name: str) -> SeenFiles:
        kept = self.names != hash(name)
        return SeenFiles(self.names[kept], self.stamps[kept])

    def among(self, present: Hashes) -> SeenFiles:
        """What still lies in the folder. Args: present: sorted."""
        if not present.size:
            return self.none()
        places = np.minimum(np.searchsorted(present, self.names), present.size - 1)
        kept = present[places] == self.names
        return SeenFiles(self.names[kept], self.stamps[kept])

    def updated(self, admitted: dict[int, int]) -> SeenFiles:
        """With files that are new or were overwritten."""
        if not admitted:
            return self
        others = ~np.isin(self.names, np.fromiter(admitted, np.int64, len(admitted)))
        names = np.concatenate([self.names[others], np.fromiter(admitted, np.int64, len(admitted))])
        stamps = np.concatenate([self.stamps[others], np.fromiter(admitted.values(), np.int64, len(admitted))])
        order = np.argsort(names)
        return SeenFiles(names[order], stamps[order])


def stamp_of(status: os.stat_result) -> int:
    """Of a file's size and time of change."""
    return hash((status.st_size, status.st_mtime_ns))


def is_watched(name: str) -> bool:
    """Whether a file is read, by its name."""
    return has_picture_name(name) and name[0] != "~"  # as many programs call what they have not finished


def status_of(entry: os.DirEntry[str]) -> os.stat_result | None:
    """None if it is gone since it was listed. Raises `OSError`."""
    try:
        return entry.stat()
    except FileNotFoundError:
        if entry.is_symlink():
            raise
        return None


def new_file(entry: os.DirEntry[str], refused: dict[str, str]) -> Iterator[tuple[int, str, int]]:
    """Time of change in ns, name and size of a file; nothing of an entry that is none, which is put into `refused`."""
    try:
        found = status_of(entry)
    except OSError as error:
        refused[entry.name] = f"cannot be looked at ({error.strerror or error})"
        return
    if found is None:
        return
    if (kind := no_file(found.st_mode)) is not None:
        refused[entry.name] = f"is {kind} and no picture"
    else:
        yield found.st_mtime_ns, entry.name, found.st_size


def is_file(entry: os.DirEntry[str]) -> bool:
    """False too where nobody can tell."""
    try:
        return entry.is_file()
    except OSError:
        return False
