"""The log of a review: who decided what of which picture, and when. All that is known of a review is read from it."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
import unicodedata
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Literal

from runtime.closing import Closing
from stlm_edge.errors import ConfigError, ControlError, DataError, OutputError, counted
from stlm_edge.files import cannot_write, sync
from stlm_edge.names import escaped, unescaped
from stlm_edge.records import MAY_LACK, Within, build, parse

logger = logging.getLogger(__name__)

LOG = "review.jsonl"

Call = Literal["good", "defect", "skip"]

_LONGEST_REVIEWER = 60
_REMEDY = "remove that line, and its picture is asked for again, or restore the file"


@dataclass(frozen=True)
class Decision:
    """A line of the log.

    Attributes:
        seq: number of the line, from 1 on.
        time: ISO 8601, UTC.
        reviewer: who decided.
        call: what was decided; `undo` takes back the decision `of`.
        folder, picture: where the picture lay, and its name in there; escaped.
        sha256: of the picture's file.
        kind: of defect.
        files: what was written, below the data set's folder; the picture first.
        replaces: number of the decision about the same picture that this one takes the place of.
        score, threshold, unclear_from, verdict, engine_sha256: what the line had said, see `kept.Said`.
    """

    seq: Annotated[int, Within(1)]
    time: str
    reviewer: str
    call: Literal["good", "defect", "skip", "undo"]
    of: int | None = field(default=None, metadata=MAY_LACK)
    folder: str = field(default="", metadata=MAY_LACK)
    picture: str = field(default="", metadata=MAY_LACK)
    sha256: str = field(default="", metadata=MAY_LACK)
    kind: str | None = field(default=None, metadata=MAY_LACK)
    files: tuple[str, ...] = field(default=(), metadata=MAY_LACK)
    replaces: int | None = field(default=None, metadata=MAY_LACK)
    score: float | None = field(default=None, metadata=MAY_LACK)
    threshold: float | None = field(default=None, metadata=MAY_LACK)
    unclear_from: float | None = field(default=None, metadata=MAY_LACK)
    verdict: str | None = field(default=None, metadata=MAY_LACK)
    engine_sha256: str | None = field(default=None, metadata=MAY_LACK)

    @property
    def disagrees(self) -> bool:
        """Whether the inspector contradicts the line: a false alarm, or a defect that was let through."""
        return (self.call, self.verdict) in (("good", "reject"), ("defect", "good"))

    def __post_init__(self) -> None:
        for name in map(unescaped, self.files):
            if name.startswith("/") or "\0" in name or ".." in name.split("/"):
                raise DataError(f"decision {self.seq} names the file {name}, expected one in the data set; {_REMEDY}")


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def reviewer_named(name: str) -> str:
    """A reviewer's name as it stands in the log. Raises `ConfigError`."""
    plain = " ".join(unicodedata.normalize("NFC", name).split())
    if not 0 < len(plain) <= _LONGEST_REVIEWER or not plain.isprintable():
        raise ConfigError(
            f"found {plain[:80]!r} as the reviewer's name, expected 1 to {_LONGEST_REVIEWER} printable characters"
        )
    return plain


class ConflictError(ControlError):
    """Somebody has decided about the picture meanwhile. Attributes: decision: theirs; None if it was taken back."""

    def __init__(self, message: str, decision: Decision | None) -> None:
        super().__init__(message)
        self.decision = decision


def conflict_with(decision: Decision | None) -> ConflictError:
    """What is wrong with a decision that does not know of this one; None: of one that was taken back."""
    if decision is None:
        return ConflictError("the decision that you saw was taken back meanwhile; decide again", None)
    what = decision.call if decision.kind is None else f"defect ({decision.kind})"
    return ConflictError(
        f"{decision.reviewer} has decided meanwhile that {decision.picture} is: {what}; decide again to replace that",
        decision,
    )


class DecisionLog(Closing):
    """Appends decisions to `review.jsonl`, each on the disk when `append` returns, and knows which of them hold.

    Attributes:
        path: of the file.
        decisions: all, undos too, by their numbers.
        holding: SHA-256 of a picture → the decision about it that was neither undone nor replaced, oldest first.
        taken_back: numbers of those that were.
    """

    def __init__(self, folder: Path) -> None:
        """Raises `DataError` if a line is damaged, `OutputError` if the file cannot be written."""
        self.path = folder / LOG
        self.decisions: dict[int, Decision] = {}
        self.holding: dict[str, Decision] = {}
        self.taken_back: set[int] = set()
        self._file: io.FileIO | None = None
        try:
            if self.path.exists():
                self._open()
        except OSError as error:
            raise cannot_write(self.path, error) from error
        except BaseException:
            self.close()
            raise

    @property
    def next_seq(self) -> int:
        return max(self.decisions, default=0) + 1

    def append(self, decision: Decision) -> None:
        """Write a line. Raises `OutputError`; then nothing of it is there."""
        self._require_there()
        line = {key: value for key, value in dataclasses.asdict(decision).items() if value not in (None, "", ())}
        rest = memoryview(f"{json.dumps(line)}\n".encode())
        end, file = 0, self._file
        try:
            file = self._open() if file is None else file
            end = file.seek(0, os.SEEK_END)
            while rest:  # of a disk that is nearly full the second write says why
                rest = rest[file.write(rest) :]
            sync(file.fileno())
        except OSError as error:
            if file is not None:
                file.truncate(end)
            raise cannot_write(self.path, error) from error
        self._take(decision)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _require_there(self) -> None:
        """Raises `OutputError` where the log lies elsewhere by now, with all that would be written to it."""
        if self._file is None:
            return
        with suppress(OSError):
            if os.path.samestat(self.path.stat(), os.fstat(self._file.fileno())):
                return
        raise OutputError(
            f"{self.path} was moved or deleted while the review runs, expected the log with its "
            f"{counted(len(self.decisions), 'line')}; put it back, or end the program and start it anew"
        )

    def _open(self) -> io.FileIO:
        """Open the log and take what stands in it. Raises `OSError`, `DataError`."""
        self._file = io.FileIO(self.path, "a+")
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            logger.warning("%s: half a line at its end is cut off: %s", self.path, escaped(repr(content[whole:][:200])))
            self._file.truncate(whole)
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            what = f"{self.path}, line {number},"
            text = line.decode("utf-8", "backslashreplace")
            decision = build(Decision, parse(text, what=what, error=DataError, remedy=_REMEDY), error=DataError,
                             remedy=f"{what} {_REMEDY}")  # fmt: skip
            if decision.seq in self.decisions:
                raise DataError(f"{what} has the number {decision.seq} a second time; {_REMEDY}")
            self._take(decision)
        return self._file

    def _take(self, decision: Decision) -> None:
        self.decisions[decision.seq] = decision
        for other in (decision.of, decision.replaces):
            if other is not None and (former := self.decisions.get(other)) is not None:
                self.taken_back.add(other)
                if self.holding.get(former.sha256) is former:
                    del self.holding[former.sha256]
        if decision.call != "undo":
            self.holding[decision.sha256] = decision
