"""What happens to a line and not to one frame: cameras that go and come back, frames that show nothing, drift,
outputs that nobody takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

EventKind = Literal[
    "camera-lost",
    "camera-back",
    "picture-skipped",
    "picture-incomplete",
    "camera-fault",
    "camera-fault-over",
    "drift",
    "drift-over",
    "part-lost",
    "overrun",
    "late",
    "trigger-failed",
    "recipe-changed",
    "recipe-refused",
    "output-lost",
    "output-back",
    "shadow-differs",
    "shadow-failed",
]

KINDS: tuple[EventKind, ...] = get_args(EventKind)

GOOD_NEWS: frozenset[EventKind] = frozenset(
    {"camera-back", "camera-fault-over", "drift-over", "recipe-changed", "output-back"}
)
"""The kinds that say that something is over, or was done as it was asked for."""

FREQUENT: tuple[EventKind, ...] = ("overrun", "late", "shadow-differs")
"""The kinds that may come with every frame, and are logged once a minute; outputs get each."""


@dataclass(frozen=True)
class Event:
    """Something that happened to the line.

    Attributes:
        kind: for programs.
        text: for people, one line; without credentials.
        timestamp_s: on the clock of `time.monotonic`.
        details: more for programs, ready for JSON, with names escaped.
    """

    kind: EventKind
    text: str
    timestamp_s: float
    details: Mapping[str, Any] = field(default_factory=dict)


Tell = Callable[[Event], None]
"""Takes word of an event, on any thread."""
