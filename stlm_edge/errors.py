"""Every error that the toolkit raises on purpose.

    StlmError
    ├── ConfigError          a setting or preset that cannot work
    ├── DataError            a data folder that does not hold what is needed
    │   └── ImageError       one picture or mask that cannot be used
    ├── DownloadError        a file that cannot be fetched or is not the published one
    ├── WeightsError         a weights file that is missing, altered or of another network
    ├── CheckpointError      a checkpoint that cannot be read or is not finished
    ├── TrainingError        a training that has gone astray
    ├── SpecError            a model specification that is missing or does not match
    ├── EngineError          an engine that cannot be opened or run
    ├── VerificationError    two backends that should agree and do not
    ├── SourceError          a frame source that cannot be opened or has failed
    │   └── SourceTimeout    a source that is open but has not delivered in time
    │       └── FrameDamaged a frame came that is not whole
    ├── OutputError          a place that cannot be written to
    └── ControlError         something asked of a running line that it cannot do now

A message says what was found, what was expected and what to do about it, in one line.
"""

from __future__ import annotations

import re
import reprlib

from stlm_edge.credentials import without_logins
from stlm_edge.names import printable

LONGEST_WORD, LONGEST_LINE = 240, 1200
"""Characters of a path or a value in a message, and of the whole message; what is longer is cut in its middle."""

_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother, _REPR.maxdict, _REPR.maxlist = 2, 120, 120, 4, 12


def one_line(message: str) -> str:
    """`message` for a terminal or a log: one line, no secret, no control characters, long paths and values cut."""
    line = printable(" ".join(without_logins(message).split()))  # before a cut makes a part of a secret of it
    line = "".join(
        character if character.isprintable() else character.encode("unicode_escape", "backslashreplace").decode()
        for character in line
    )
    line = re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda word: cut(word[0], LONGEST_WORD), line)
    return cut(line, LONGEST_LINE)


def shown(value: object) -> str:
    """A value that someone gave, for a message: as Python writes it, but never more than some hundred characters."""
    try:
        return cut(_REPR.repr(value), LONGEST_WORD)
    except ValueError:  # Python writes out no number of thousands of digits
        return "a number of thousands of digits"


def counted(count: int, what: str, several: str = "") -> str:
    """`1 picture`, `2 pictures`. Args: several: its plural, if that is not `what` with an s."""
    return f"{count} {what if count == 1 else several or what + 's'}"


def shortly(error: BaseException) -> str:
    """What a library said when it failed, for the inside of a message of ours."""
    return cut(" ".join(str(error).split()) or type(error).__name__, 200)


def cut(text: str, most: int = LONGEST_LINE) -> str:
    """`text` with its middle left out where it is longer than that."""
    if len(text) <= most:
        return text
    head = most * 2 // 3
    return f"{text[:head]}…{text[head + 1 - most :]}"


class StlmError(Exception):
    """Base of all errors that a program prints as one line and answers with exit code 1."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class ConfigError(StlmError):
    """A setting or a preset that cannot work."""


class DataError(StlmError):
    """A data folder that does not hold what is needed."""


class ImageError(DataError):
    """One picture or mask that cannot be used."""


class DownloadError(StlmError):
    """A file that cannot be fetched, or that is not the one its owners publish."""


class WeightsError(StlmError):
    """A weights file that is missing, altered or made for another network."""


class CheckpointError(StlmError):
    """A checkpoint that cannot be read or is not finished."""


class TrainingError(StlmError):
    """A training that has gone astray."""


class SpecError(StlmError):
    """A model specification that is missing or does not match."""


class EngineError(StlmError):
    """An engine that cannot be opened or run."""


class VerificationError(StlmError):
    """Two backends that should give the same answer and do not.

    Attributes:
        lines: what was found of them, for people.
        objections: what of it is beyond the gate's limits; empty where nothing was judged.
    """

    def __init__(self, message: str, *, lines: tuple[str, ...] = (), objections: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.lines = lines
        self.objections = objections


class SourceError(StlmError):
    """A frame source that cannot be opened or has failed."""


class SourceTimeout(SourceError):
    """A source that is open but has not delivered a frame in time."""


class FrameDamaged(SourceTimeout):
    """A frame came that cannot be decoded or is not whole; the next one may be."""


class OutputError(StlmError):
    """A place that cannot be written to."""


class ControlError(StlmError):
    """Something was asked of a running line that it cannot do now."""
