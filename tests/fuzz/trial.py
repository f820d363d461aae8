"""Trying damaged files in a process of their own, whose time and memory are watched from outside."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import multiprocessing
import os
import random
import re
import shutil
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

from stlm_edge.errors import LONGEST_LINE, StlmError

from .target import Files
from .targets import TARGETS

Kind = Literal["refused", "same answer", "another answer", "traceback", "hang", "memory"]
KINDS: tuple[Kind, ...] = ("refused", "same answer", "another answer", "traceback", "hang", "memory")
FAULTS: tuple[Kind, ...] = ("traceback", "hang", "memory")

MOST_S = 20.0
MOST_BYTES = 2 * 10**9


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one damaged file, and in words why."""

    kind: Kind
    words: str = ""


def altered(name: str, seed: int, files: Files) -> Files:
    """The files of a target with one of them damaged; the same for the same seed."""
    target, changed = TARGETS[name], dict(files)
    changed[target.damaged] = target.alter(files[target.damaged], random.Random(f"{name} {seed}"))
    with contextlib.suppress(ValueError, LookupError, TypeError):  # what is damaged too much has no hash to mend
        target.finish(changed)
    return changed


def lay_out(files: Files, folder: Path) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def ask(name: str, files: Files) -> Outcome:
    """What the files of a target give in an empty folder; `words` are then the answer."""
    with tempfile.TemporaryDirectory() as folder:
        lay_out(files, Path(folder))
        try:
            answer = repr(TARGETS[name].read(Path(folder)))
        except StlmError as error:
            line = str(error)
            if "\n" in line or len(line) > LONGEST_LINE + 20 or not line.isprintable():
                return Outcome("traceback", f"not one line: {line!r}")
            return Outcome("refused", re.sub(re.escape(folder), "", line))
        except Exception:
            return Outcome("traceback", traceback.format_exc())
        return Outcome("same answer", re.sub(re.escape(folder), "", answer))


def work(connection: Connection) -> None:
    """A worker's life: it is told a target and a seed, and tells what came of it."""
    logging.disable(logging.WARNING)
    with Path("/dev/null").open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # OpenCV and its codecs have much to say of damaged pictures
    warnings.simplefilter("ignore")
    known: dict[str, tuple[Files, str]] = {}
    while (asked := connection.recv()) is not None:
        name, seed = asked
        if name not in known:
            files = TARGETS[name].make()
            whole = ask(name, files)
            if whole.kind != "same answer":
                connection.send(Outcome("traceback", f"the undamaged file: {whole.words}"))
                continue
            known[name] = files, whole.words
        files, right = known[name]
        connection.send("begins")
        found = ask(name, altered(name, seed, files))
        if found.kind == "same answer" and found.words != right:
            found = Outcome("another answer")
        connection.send(found)


class Worker:
    """One process that tries files; it is ended, and another one begun, when a file takes too long or too much."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._process: multiprocessing.process.BaseProcess | None = None

    def attempt(self, name: str, seed: int) -> Outcome:
        if self._process is None:
            self._is_stuck = False
            self._connection, other = self._context.Pipe()
            self._process = self._context.Process(target=work, args=(other,), daemon=True)
            self._process.start()
            other.close()
        self._connection.send((name, seed))
        try:
            found = self._wait(600)  # the imports, and the undamaged file
            if found == "begins":
                found = self._wait(MOST_S)
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            self.close()
            return Outcome("traceback", f"the process ended with {code}")
        if found.kind in ("hang", "memory"):
            self._is_stuck = True
            self.close()
        assert isinstance(found, Outcome)
        return found

    def _wait(self, seconds: float) -> Outcome:
        assert self._process is not None
        until_s = time.monotonic() + seconds
        before = _memory(self._process.pid)
        while not self._connection.poll(0.1):
            if _memory(self._process.pid) - before > MOST_BYTES:
                return Outcome("memory")
            if time.monotonic() > until_s:
                return Outcome("hang")
        return self._connection.recv()  # type: ignore[no-any-return]

    def close(self) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._connection.send(None)
            self._process.join(0 if self._is_stuck else 5)
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = None


@contextlib.contextmanager
def worker() -> Iterator[Worker]:
    made = Worker()
    try:
        yield made
    finally:
        made.close()


@dataclasses.dataclass
class Tally:
    """How often what happened to the files of one target; `faults` by seed."""

    counts: Counter[Kind] = dataclasses.field(default_factory=Counter)
    faults: dict[int, Outcome] = dataclasses.field(default_factory=dict)

    def add(self, seed: int, outcome: Outcome) -> None:
        self.counts[outcome.kind] += 1
        if outcome.kind in FAULTS:
            self.faults[seed] = outcome


def keep(name: str, seed: int, outcome: Outcome, folder: Path) -> Path:
    """Write the files that gave a fault, and what came of them, into a folder of their own below `folder`."""
    place = folder / re.sub(r"\W", "-", name) / str(seed)
    shutil.rmtree(place, ignore_errors=True)
    lay_out(altered(name, seed, TARGETS[name].make()), place)
    (place / "what-happened.txt").write_text(f"{outcome.kind}\n{outcome.words}\n", encoding="utf-8")
    return place


def _memory(pid: int | None) -> int:
    """Of a process, in bytes; 0 when it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):
        return 0
