"""How names of files stand in what people and other programs read: tables, JSON, logs, terminals and pictures.

A name on Linux is bytes: it may hold line breaks, what a terminal takes for commands, and bytes that are no UTF-8,
which Python carries as surrogates. The one rule for all outputs, `escaped`: bytes that are no UTF-8 and control
characters of ASCII become `\\xNN`, other control characters, line separators and changes of the writing direction
`\\uNNNN`, with lower-case digits. A backslash stays as it is, unless it would read as the beginning of such an escape;
then it becomes `\\x5c`. So what comes out is UTF-8 in one line, two names never become one, and `unescaped` gives the
name back.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from difflib import get_close_matches

LONGEST_NAME = 255
"""Bytes of a file's name, on all usual file systems."""

_HASH = 16
_UNSAFE = r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
_IN_NAMES = re.compile(_UNSAFE + r"|\\(?=x[0-9a-f]{2}|u[0-9a-f]{4})")
_IN_LINES = re.compile(_UNSAFE)
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})|\\u([0-9a-f]{4})")
_FORMULA = re.compile(r"'*[=+\-@]")
_MARKDOWN = re.compile(r"[\\`*\[\]<|&~$]|(?<![^\W_])_|_(?![^\W_])")


def escaped(name: str) -> str:
    """A name as it may be written anywhere: see the module's text."""
    return _IN_NAMES.sub(_escape, name)


def printable(line: str) -> str:
    """A line for people with names in it, escaped or not. Backslashes stay, so doing it again changes nothing."""
    return _IN_LINES.sub(_escape, line)


def unescaped(text: str) -> str:
    """The name that `escaped` was given."""
    return _ESCAPE.sub(_unescape, text)


def defused(text: str) -> str:
    """Text as a cell of a table: with an apostrophe before what a spreadsheet would take for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def cell(name: str) -> str:
    """A name as a cell of a table, escaped and defused."""
    return defused(escaped(name))


def from_cell(text: str) -> str:
    """The name that `cell` was given."""
    return unescaped(text[1:] if text.startswith("'") and _FORMULA.match(text) else text)


def markdown(text: str) -> str:
    """Text with names in it as a cell of a table in a Markdown document: in one line, and nothing in it is markup."""
    return _MARKDOWN.sub(r"\\\g<0>", printable(text))


def for_drawing(text: str, *, most: int = 80) -> str:
    """Text with names in it to be drawn by OpenCV, whose font has ASCII alone; the middle of a long one is left out."""
    plain = printable(text).encode("ascii", "backslashreplace").decode()
    return plain if len(plain) <= most else f"{plain[: most * 2 // 3 - 3]}...{plain[-(most // 3) :]}"


def fitted(name: str, *, suffix: str) -> str:
    """A file's name with a suffix behind it; where that is longer than a file system takes, a hash stands for the rest.

    Different names stay different.
    """
    if len(os.fsencode(name + suffix)) <= LONGEST_NAME:
        return name + suffix
    ending = f"~{hashlib.sha256(os.fsencode(name)).hexdigest()[:_HASH]}{suffix}"
    return beginning(name, most=LONGEST_NAME - len(os.fsencode(ending))) + ending


def beginning(name: str, *, most: int) -> str:
    """As many characters of a name as take `most` bytes."""
    short = name[:most]
    while len(os.fsencode(short)) > most:
        short = short[:-1]
    return short


def nearest(wanted: str, names: Sequence[str]) -> str:
    """What to say of a name that is unknown: which one is like it, if any, and which there are; the list follows."""
    close = get_close_matches(wanted, names, n=1)
    return f"did you mean {close[0]}? Known are " if close else "known are "


def is_utf8(text: str | os.PathLike[str]) -> bool:
    """Whether a name can be given to OpenCV, which ends the whole program on one that cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in os.fspath(text))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"


def _unescape(found: re.Match[str]) -> str:
    code = int(found[1] or found[2], 16)
    return chr(0xDC00 + code if found[1] and code >= 0x80 else code)
