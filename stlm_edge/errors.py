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
    └── OutputError          a place that cannot be written to

A message says what was found, what was expected and what to do about it, in one line.
"""

from __future__ import annotations


class StlmError(Exception):
    """Base of all errors that a program prints as one line and answers with exit code 1."""


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
    """

    def __init__(self, message: str, *, lines: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.lines = lines


class SourceError(StlmError):
    """A frame source that cannot be opened or has failed."""


class SourceTimeout(SourceError):
    """A source that is open but has not delivered a frame in time."""


class OutputError(StlmError):
    """A place that cannot be written to."""
