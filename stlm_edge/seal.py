"""The SHA-256 that a record carries of itself, so that damage and edits are noticed.

It has no key: it vouches for what was written, not for who wrote it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from stlm_edge.errors import StlmError

SEAL = "sha256"
"""Key of a record's own hash."""


def seal_of(content: dict[str, Any]) -> str:
    """SHA-256 over what a record says, however it is laid out."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    return {**content, SEAL: seal_of(content)}


def unsealed(data: dict[str, Any], path: Path, *, error: type[StlmError], remedy: str) -> dict[str, Any]:
    """What a record says, if that is what was written; one from before records were sealed is taken as it is.

    Raises `error`, with `remedy` at the end of its message.
    """
    content = {name: value for name, value in data.items() if name != SEAL}
    if data.get(SEAL, seal_of(content)) != seal_of(content):
        raise error(f"{path} has another SHA-256 than it says, so it was edited or damaged; {remedy}")
    return content
