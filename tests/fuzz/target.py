"""What a target is, and what its makers and readers share."""

from __future__ import annotations

import dataclasses
import io
import json
import random
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from stlm_edge.errors import StlmError
from stlm_edge.seal import SEAL, seal_of

from .mutations import of_json, of_object, write

Files = dict[str, bytes]
"""Content by path below a folder."""


@dataclasses.dataclass(frozen=True)
class Target:
    """One kind of file.

    Attributes:
        make: the files that belong together.
        damaged: the one that is altered.
        read: the answer of who reads them, in a folder of their own; raises `StlmError` where they are refused.
        alter: how it is altered.
        finish: what else is altered with it, such as hashes.
        is_mended: a damaged file is never refused: what is whole of it is taken.
    """

    make: Callable[[], Files]
    damaged: str
    read: Callable[[Path], object]
    alter: Callable[[bytes, random.Random], bytes] = of_json
    finish: Callable[[Files], None] = lambda _: None
    is_mended: bool = False


def saved(fill: Callable[[Path], object]) -> Files:
    """What a function writes into an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder))
        return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def commanded(main: Callable[[list[str]], int], *arguments: str) -> str:
    """What a command prints; what it refuses in one line and with exit code 1 is raised as the error that it was."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(list(arguments))
    if code == 0:
        return out.getvalue()
    lines = err.getvalue().splitlines()
    if (
        code == 1
        and lines
        and lines[-1].startswith("error: ")
        and sum(line.startswith("error: ") for line in lines) == 1
    ):
        raise StlmError(lines[-1])
    raise AssertionError(f"exit code {code} and the lines {lines[-5:]}")


def resealed(content: bytes, rng: random.Random) -> bytes:
    record = of_object({name: value for name, value in json.loads(content).items() if name != SEAL}, rng)
    try:
        return write({**record, SEAL: seal_of(json.loads(write(record)))})
    except (ValueError, RecursionError):  # a text that is not Unicode, or nested too deeply to be sealed
        return write(record)
