"""What the layouts of data sets ask of folders and of the lists of pictures in them."""

from __future__ import annotations

import codecs
import errno
import re
from collections.abc import Iterable
from pathlib import Path

from stlm_edge.errors import DataError
from stlm_edge.folders import entries, is_file, is_folder
from stlm_edge.names import escaped

MOST_TEXT = 64 << 20
"""Bytes of a list of pictures; VisA's has one million."""


def require_folder(folder: Path) -> None:
    """Raises `DataError` if there is none."""
    if not is_folder(folder):
        found = "is a file" if is_file(folder) else "does not exist"
        raise DataError(f"{folder} {found}, expected a folder of pictures; check the path")


def has_folder(folder: Path) -> bool:
    """Whether a part of a layout is there. Raises `DataError` if it is a file."""
    if is_file(folder):
        raise DataError(f"{folder} is a file, expected a folder; move it away, or unpack the data set again")
    return is_folder(folder)


def folders(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted, as they are spelt. Raises `DataError` if it cannot be read."""
    return [path.name for path in entries(folder) if is_folder(path)]


def found_folders(names: Iterable[str]) -> str:
    """Which folders there are, for a message."""
    return f"found the folders {', '.join(map(escaped, names))}" if names else "found no folder"


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
