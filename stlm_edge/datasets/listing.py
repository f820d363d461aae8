"""What lies in a folder: pictures and folders, without the hidden ones, in order."""

from __future__ import annotations

import codecs
import errno
import re
from collections.abc import Iterable
from pathlib import Path

from stlm_edge.errors import DataError
from stlm_edge.imaging import IMAGE_SUFFIXES

MOST_TEXT = 64 << 20
"""Bytes of a list of pictures; VisA's has one million."""

SUFFIXES = ", ".join(sorted(IMAGE_SUFFIXES))


def require_folder(folder: Path) -> None:
    """Raises `DataError` if there is none."""
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {found}, expected a folder of pictures; check the path")


def pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, sorted by name. Raises `DataError` if it cannot be read."""
    return sorted(path for path in entries(folder) if is_picture(path))


def folders(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted, as they are spelt. Raises `DataError` if it cannot be read."""
    return sorted(path.name for path in entries(folder) if path.is_dir() and not path.name.startswith("."))


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def found_folders(names: Iterable[str]) -> str:
    """Which folders there are, for a message."""
    return f"found the folders {', '.join(names)}" if names else "found no folder"


def is_there(path: Path) -> bool:
    """Whether a file is there, for paths out of files: one that no file can have is not."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False


def read_text(path: Path) -> str:
    """Text as spreadsheets and Windows write it too: UTF-8 or UTF-16, told apart by the byte-order mark.

    Raises:
        OSError, UnicodeError: for the caller to say what was expected of the file.
    """
    with path.open("rb") as file:
        content = file.read(MOST_TEXT + 1)
    if len(content) > MOST_TEXT:
        raise OSError(errno.EFBIG, f"more than {MOST_TEXT >> 20} MiB")
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if is_utf16 else "utf-8-sig")


def by_number(name: str) -> list[tuple[int, str]]:
    """A key that sorts Class2 before Class10: by how many digits a number has, for it may have thousands."""
    parts = [(part, part.lstrip("0")) for part in re.split(r"(\d+)", name)]
    return [(len(number), number) if part.isdecimal() else (-1, part) for part, number in parts]


def entries(folder: Path) -> list[Path]:
    """All that lies in a folder. Raises `DataError` if it cannot be read."""
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror or error}); check the path and its rights") from None
