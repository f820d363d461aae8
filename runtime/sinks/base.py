"""The interface of everything that takes inspected frames."""

from __future__ import annotations

import secrets
import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, ClassVar

from runtime.closing import Closing
from runtime.control import LineControl
from runtime.event import Event, Tell
from runtime.inspection import Inspection
from runtime.part import Part
from runtime.uri import Option, parse_options
from stlm_edge.errors import OutputError

OPEN = "open"
"""The state of an output that has nothing else to say."""


@dataclass(frozen=True)
class SinkContext:
    """What an output may need to know of the run, besides what comes with each frame.

    Attributes:
        engine_sha256: of the engine that gives the verdicts.
        fps: pace of the source; None where it has none.
        control: of the line, for outputs that also trigger parts or change recipes; None where there is none.
        tell: takes events that an output itself has to tell of, for all outputs; None where nobody listens.
        has_parts: the line gives results of parts, and not of frames alone.
        camera: its name, of several; None of the only one.
        run: a word that tells this run from others, since each counts its parts from 0.
    """

    engine_sha256: str
    fps: float | None = None
    control: LineControl | None = None
    tell: Tell | None = None
    has_parts: bool = False
    camera: str | None = None
    run: str = field(default_factory=lambda: secrets.token_hex(8))

    def require_parts(self, uri: str) -> None:
        """Raises `OutputError` for an output that waits for results of parts where there will be none."""
        if not self.has_parts:
            raise OutputError(
                f"{uri} is for results of parts, and nothing tells one part from the next; give --trigger, "
                "--part-frames, --part-gap or --deadline-ms, or another output"
            )


class FrameSink(Closing):
    """Takes inspected frames; owns its file, window or connection until `close`.

    After `__init__`, which must raise `OutputError` where the place cannot be used, all methods are called on one
    thread, the sink's own, and may take their time: see `Outputs`. `wants_stop` is asked for on another.

    Attributes:
        takes_pictures: False for a sink that looks at no pixels; it is given none, and many frames may wait for it.
        takes_frames: False for a sink that looks at parts and events alone; it is given no frames.
        is_measured: what it takes for a frame counts among the run's latencies.
        closes_within_s: a `close` that takes longer is given up.
        lost: frames or parts that were written and are gone with what they were written to.
    """

    takes_pictures: bool = True
    takes_frames: bool = True
    is_measured: ClassVar[bool] = True
    closes_within_s: ClassVar[float] = 10.0
    lost: int = 0

    @property
    def wants_stop(self) -> bool:
        """True once a person has asked for the end of the run."""
        return False

    @property
    def state(self) -> str:
        """How it stands with the output's other side, in one short line; asked for on any thread."""
        return OPEN

    @property
    def away(self) -> str | None:
        """Why the other side takes nothing, for people; None while it does, or where there is none. On any thread."""
        return None

    @classmethod
    def check(cls, uri: str) -> None:
        """See what can be seen of an output without opening it: its options, a port. Raises `OutputError`."""

    @abstractmethod
    def write(self, inspection: Inspection) -> bool | None:
        """Take one frame. Raises `OutputError`; the next frame is tried all the same.

        Returns:
            False if nothing of it was to be written.
        """

    def write_part(self, part: Part) -> bool | None:  # noqa: ARG002 - for those that take parts
        """Take the result of a part, after its frames. Otherwise like `write`."""
        return False

    def write_event(self, event: Event) -> None:
        """Take word of something that happened to the line. Raises `OutputError`."""

    @abstractmethod
    def close(self) -> None:
        """Finish the output; harmless when called twice. Raises `OutputError` if it cannot be finished."""


def utc(timestamp_s: float) -> datetime:
    """The time of day, in UTC, of something on the clock of `time.monotonic`."""
    return datetime.fromtimestamp(time.time() - (time.monotonic() - timestamp_s), timezone.utc)


def output_options(uri: str, known: Mapping[str, Option]) -> dict[str, Any]:
    """The options of an output's URI, as keyword arguments. Raises `OutputError`, which lists the known ones."""
    try:
        return parse_options(uri.partition("?")[2], known)
    except ValueError as error:
        names = ", ".join(known) or "none for this output"
        raise OutputError(f"{uri} is not an output: {error}; known options are {names}") from None
