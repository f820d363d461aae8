"""What a check has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "missing", "broken"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        subject: its name, such as `OpenVINO`.
        state: `missing` is not there at all, `broken` is there and cannot be used.
        found: a version, a name, or why it cannot be used.
        remedy: what to do about it; None where nothing needs to be done.
    """

    subject: str
    state: State
    found: str
    remedy: str | None = None
