"""Which files of a folder are pictures: one rule for data sets, batches, drop folders, calibration and the gate.

What systems leave behind in folders is passed over silently (hidden files, thumbnails, bins). Other files that no
suffix makes a picture are counted and said, and so is each entry that nobody can read; it costs itself alone.
"""

from __future__ import annotations

import logging
import os
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2

from stlm_edge.errors import DataError
from stlm_edge.files import kind_of

logger = logging.getLogger(__name__)

PICTURE_SUFFIXES = frozenset(
    suffix
    for suffix, writes in {
        **dict.fromkeys((".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff"), ""),
        **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), ".ppm"),
        ".webp": ".webp",
        **dict.fromkeys((".jp2", ".j2k", ".jpf", ".jpx"), ".jp2"),
    }.items()
    # OpenCV says of a suffix only whether it writes it, and is built with both directions of a format or none.
    if not writes or cv2.haveImageWriter(writes)
)
"""In lower case. Those that every OpenCV reads, and those that are left out of some builds where this one has them."""

SUFFIXES = ", ".join(sorted(PICTURE_SUFFIXES))

_LITTER = frozenset(
    {"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"}
    | {"$recycle.bin", "recycler", "system volume information", "lost+found", "lost.dir", "__macosx"}
    | {"@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "network trash folder", "temporary items"}
)
"""What Windows, macOS, Linux, Android and the makers of network storage put into folders without a dot before it."""

_MOST_LINES = 5
"""Of entries of one kind that are named; the others are counted."""
_MOST_KINDS = 6

_said: set[str] = set()
"""A folder is often listed more than once in a run, and says the same each time."""


def is_litter(name: str) -> bool:
    """Whether a file or a folder is hidden, or one that systems leave behind."""
    return name.startswith(".") or name.lower() in _LITTER


def has_picture_name(name: str) -> bool:
    """Whether a file is a picture by its name. Drop folders ask this of every file again and again."""
    return name[name.rfind(".") :].lower() in PICTURE_SUFFIXES and not is_litter(name)


def is_picture(path: Path) -> bool:
    return has_picture_name(path.name) and is_file(path)


def is_file(path: Path) -> bool:
    """As `Path.is_file`, and False too where nobody can tell: too long a name, a zero byte, a folder that is closed."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """As `Path.is_dir`, and False too where nobody can tell."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def no_file(mode: int) -> str | None:
    """What an entry is that is no file, by its mode; None for a file."""
    return None if stat.S_ISREG(mode) else kind_of(mode)


def entries(folder: Path) -> list[Path]:
    """All that lies in a folder and is no litter, sorted. Raises `DataError` if it cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if not is_litter(path.name))
    except OSError as error:
        raise _unreadable(folder, error) from None


def pictures_in(folder: Path, *, tell_of_those_below: bool = False) -> list[Path]:
    """The pictures in a folder and not below it, sorted. Raises `DataError` if it cannot be read.

    Args:
        tell_of_those_below: count the pictures in its folders, which are left out, in a line of the log.
    """
    listing = _Listing(folder)
    inside, linked = listing.look(folder)
    listing.tell()
    if tell_of_those_below:
        below = [(count, place) for place in sorted([*inside, *linked]) if (count := _count_below(place))]
        if below:
            count, place = sum(each for each, _ in below), below[0][1].name
            lie, are = ("1 picture lies", "is") if count == 1 else (f"{count} pictures lie", "are")
            _say(f"{folder}: {lie} in folders below it, such as {place}, and {are} left out; move them into {folder}")
    return sorted(listing.pictures)


def _count_below(folder: Path) -> int:
    """How many files below a folder have the name of a picture; links in it are not followed."""
    count = 0
    for _, inside, files in os.walk(folder):
        inside[:] = [name for name in inside if not is_litter(name)]
        count += sum(map(has_picture_name, files))
    return count


def pictures_below(folder: Path, *, leave_out: Sequence[Path] = (), beside: Sequence[str] = ()) -> list[Path]:
    """The pictures in a folder at any depth, sorted.

    Links to folders are followed. What several ways lead to is taken once, by the way without links if there is one; a
    link that leads back is told of.

    Args:
        leave_out: files and folders that are passed over silently.
        beside: suffixes of files that belong to pictures, which are passed over silently too.
    Raises:
        DataError: if the folder itself cannot be read. One below it is told of and left out.
    """
    listing = _Listing(folder, leave_out, beside)
    folders, links = [folder], list[Path]()
    is_first = True
    while folders or links:
        place = folders.pop() if folders else links.pop(0)
        try:
            if listing.is_new(place):
                inside, linked = listing.look(place)
                folders += inside
                links = sorted([*links, *linked])
        except (DataError, OSError) as error:
            if is_first:
                raise error if isinstance(error, DataError) else _unreadable(folder, error) from None
            listing.refused.append(str(error) if isinstance(error, DataError) else str(_unreadable(place, error)))
        is_first = False
    listing.tell()
    return sorted(listing.pictures)


class _Listing:
    """What was found so far, and what is to be said of the rest."""

    def __init__(self, root: Path, leave_out: Sequence[Path] = (), beside: Sequence[str] = ()) -> None:
        self.pictures: list[Path] = []
        self.refused: list[str] = []
        self._root, self._beside = root, frozenset(beside)
        self._others: Counter[str] = Counter()
        self._seen: set[tuple[int, int]] = set()
        self._left_out = {(found.st_dev, found.st_ino) for path in leave_out if (found := _stat(path)) is not None}

    def is_new(self, folder: Path) -> bool:
        """Whether a folder was not listed before. Raises `OSError`."""
        found = folder.stat()
        key = (found.st_dev, found.st_ino)
        if key in self._left_out:
            return False
        if key in self._seen:
            self.refused.append(f"{folder} leads to a folder that is listed already and is not followed")
            return False
        self._seen.add(key)
        return True

    def look(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """Take a folder's pictures; the folders in it, and the links to folders. Raises `DataError`."""
        folders, links = list[Path](), list[Path]()
        try:
            with os.scandir(folder) as found:
                for entry in found:
                    if is_litter(entry.name):
                        continue
                    if self._take(entry, folder):
                        (links if entry.is_symlink() else folders).append(folder / entry.name)
        except OSError as error:
            raise _unreadable(folder, error) from None
        return folders, links

    def _take(self, entry: os.DirEntry[str], folder: Path) -> bool:
        """Take what is a picture, count or refuse what is none; True for a folder."""
        is_named = has_picture_name(entry.name)
        path = folder / entry.name
        try:
            if entry.is_dir():
                return True
            if not is_named:
                if suffix_of(entry.name) not in self._beside and not (self._left_out and _key(entry) in self._left_out):
                    self._others[suffix_of(entry.name)] += 1
            elif entry.is_file():
                self.pictures.append(path)
            else:
                self.refused.append(f"{path} is {no_file(entry.stat().st_mode)} and no picture; it is left out")
        except FileNotFoundError:
            if entry.is_symlink():  # otherwise gone since it was listed
                self.refused.append(f"{path} is a link that leads nowhere; it is left out")
        except OSError as error:
            self.refused.append(f"{path} cannot be looked at ({error.strerror or error}); it is left out")
        return False

    def tell(self) -> None:
        """Say what was not taken, once a run."""
        lines = sorted(self.refused)[:_MOST_LINES]
        if len(self.refused) > len(lines):
            lines.append(f"{self._root} has {len(self.refused) - len(lines)} more entries of that kind")
        if count := self._others.total():
            kinds = sorted(self._others.items(), key=lambda kind: (-kind[1], kind[0]))[:_MOST_KINDS]
            more = ", …" if len(self._others) > _MOST_KINDS else ""
            lines.append(
                f"{self._root}: {count} {'file is' if count == 1 else 'files are'} passed over, "
                f"{', '.join(f'{number} {suffix}' for suffix, number in kinds)}{more}; pictures are {SUFFIXES}"
            )
        for line in lines:
            _say(line)


def _say(line: str) -> None:
    """Warn, once a run."""
    if line not in _said:
        _said.add(line)
        logger.warning("%s", line)


def suffix_of(name: str) -> str:
    """Of a file that is no picture, for messages."""
    suffix = Path(name).suffix.lower()
    return suffix if suffix[1:].isalnum() and len(suffix) <= 8 else "other"


def _key(entry: os.DirEntry[str]) -> tuple[int, int]:
    found = entry.stat()
    return found.st_dev, found.st_ino


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _unreadable(folder: Path, error: OSError) -> DataError:
    return DataError(f"{folder} cannot be read ({error.strerror or error}); check the path and its rights")
