"""What a network has not taken yet: a queue on the disk, bounded, that outlives the program."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from pathlib import Path

from runtime.closing import Closing
from runtime.timing import Seldom
from runtime.uri import format_bytes
from stlm_edge.errors import OutputError, counted, shortly
from stlm_edge.files import make_folder, state_folder

logger = logging.getLogger(__name__)

DEFAULT_LIMIT = 10**8

_MOST_UNSAVED = 1000
"""Messages that wait in memory while the disk takes none."""
_SAVED_EVERY_S = 1.0
_PRIVATE = 0o600
_OVERHEAD = 64
"""Bytes that a message takes besides its payload, about."""
_TABLE = "CREATE TABLE IF NOT EXISTS message (number INTEGER PRIMARY KEY, kind TEXT NOT NULL, payload BLOB NOT NULL)"


@dataclass(frozen=True)
class Message:
    """What is to be sent.

    Attributes:
        number: its place in the order, from 1 on.
        kind: what it is, for the sender.
    """

    number: int
    kind: str
    payload: bytes


class Outbox(Closing):
    """Messages in the order in which they were put, until each is done. All threads may use it.

    A message is in the kernel's hands before it is sent, so a killed program loses none; a power cut loses at most what
    came since the last `save`. What is done leaves the disk with the next message that comes, or with
    `save`: of a killed program, the last messages may be sent once more. That is one write a message, for the sake of
    flash memory.

    What is beyond the limit is not taken and counted. While the disk takes nothing, messages wait in memory.
    """

    def __init__(self, file: Path, *, limit: int = DEFAULT_LIMIT) -> None:
        """Open a queue, or go on with what an earlier run left there.

        It is for its owner alone. A file that is damaged is set aside under another name, which is logged.

        Args:
            limit: bytes of what waits.
        Raises:
            OutputError: if the file cannot be written, or another program has it open.
        """
        self.file = file
        self._limit = limit
        self.lost = 0
        """Messages that did not fit."""
        self._lock = threading.RLock()
        self._unsaved: deque[Message] = deque()
        self._done: list[int] = []
        self._is_synced = True
        self._saved_s = time.monotonic()
        self._failure_log = Seldom()
        make_folder(file.parent)
        self._database = self._open()
        rows = self._database.execute("SELECT number, length(payload) FROM message ORDER BY number").fetchall()
        # In the order of the numbers. Of a dict, taking the first again and again would look at all that were before.
        self._sizes = OrderedDict((number, size + _OVERHEAD) for number, size in rows)
        self._bytes = sum(self._sizes.values())
        self._last = max(self._sizes, default=0)
        if rows:
            logger.info("found %s of an earlier run in %s; sent first", counted(len(rows), "message"), file)

    def __len__(self) -> int:
        return len(self._sizes)

    def put(self, kind: str, payload: bytes, *, share: float = 1.0) -> bool:
        """Take a message, or count it as lost.

        Args:
            share: of the limit that may be full when it is taken.
        Returns:
            Whether it was taken.
        """
        with self._lock:
            size = len(payload) + _OVERHEAD
            if self._bytes + size > share * self._limit:
                self.lost += 1
                return False
            message = Message(self._last + 1, kind, payload)
            self._unsaved.append(message)
            self._save()
            if len(self._unsaved) > _MOST_UNSAVED:
                self._unsaved.pop()
                self.lost += 1
                return False
            self._last = message.number
            self._sizes[message.number] = size
            self._bytes += size
            return True

    def after(self, number: int) -> Message | None:
        """The first message behind a number; None if there is none.

        Raises:
            OutputError: if the disk cannot be read.
        """
        with self._lock:
            found = next((each for each in self._sizes if each > number), None)
            if found is None:
                return None
            if self._unsaved and found >= self._unsaved[0].number:
                return next(message for message in self._unsaved if message.number == found)
            query = "SELECT number, kind, payload FROM message WHERE number = ?"
            try:
                return Message(*self._database.execute(query, (found,)).fetchone())
            except sqlite3.Error as error:
                raise OutputError(f"cannot read {self.file} ({shortly(error)}); check that disk") from error

    def done(self, number: int) -> None:
        """Forget a message that has been taken by whom it was for; harmless when called twice."""
        with self._lock:
            size = self._sizes.pop(number, None)
            if size is None:
                return
            self._bytes -= size
            if self._unsaved and number >= self._unsaved[0].number:
                self._unsaved = deque(message for message in self._unsaved if message.number != number)
            else:
                self._done.append(number)

    def keep_saved(self) -> None:
        """As `save`, but once a second only, however often it is called."""
        if time.monotonic() - self._saved_s >= _SAVED_EVERY_S:
            self.save()

    def save(self) -> None:
        """Forget on the disk too what is done, and have what waits outlive a power cut."""
        with self._lock:
            self._saved_s = time.monotonic()
            if self._done or self._unsaved:
                self._save()
            if self._sizes and not self._is_synced:
                try:
                    self._database.execute("PRAGMA wal_checkpoint(PASSIVE)")
                    self._is_synced = True
                except sqlite3.Error as error:
                    self._tell(error)

    def close(self) -> None:
        with self._lock:
            if self._done or self._unsaved:
                self._save()
            if self._unsaved:
                logger.error("%s are lost, which %s did not take", counted(len(self._unsaved), "message"), self.file)
                self._unsaved.clear()
            self._database.close()

    def _save(self) -> None:
        """Have the disk take all of it at once, or leave it for later."""
        try:
            self._database.execute("BEGIN")
            self._database.executemany("DELETE FROM message WHERE number = ?", ((number,) for number in self._done))
            self._database.executemany(
                "INSERT INTO message VALUES (?, ?, ?)",
                ((each.number, each.kind, each.payload) for each in self._unsaved),
            )
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            self._tell(error)
            return
        self._is_synced = self._is_synced and not self._unsaved
        self._done.clear()
        self._unsaved.clear()

    def _tell(self, error: sqlite3.Error) -> None:
        if self._failure_log.is_due():
            logger.error(
                "cannot write %s (%s); up to %d messages wait in memory meanwhile, and would be lost with the program; "
                "free space there, or give another folder by queue=",
                self.file,
                shortly(error),
                _MOST_UNSAVED,
            )

    def _open(self) -> sqlite3.Connection:
        try:
            return self._opened()
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise OutputError(
                    f"{self.file} is in use by another program or output, which sends to the same place; end it, or "
                    "give each a folder of its own by queue=FOLDER"
                ) from None
            raise OutputError(
                f"cannot write {self.file} ({shortly(error)}); free space there, or give another folder by queue="
            ) from error
        except sqlite3.DatabaseError as error:
            aside = self.file.with_name(f"{self.file.name}.damaged-{os.getpid()}-{time.time_ns()}")
            logger.error(
                "%s is damaged (%s) and is kept as %s; an empty queue is begun", self.file, shortly(error), aside.name
            )
            try:
                self.file.replace(aside)
                for ending in ("-wal", "-shm"):
                    self.file.with_name(self.file.name + ending).unlink(missing_ok=True)
                return self._opened()
            except (OSError, sqlite3.Error) as failure:
                raise OutputError(
                    f"{self.file} is damaged and cannot be set aside ({shortly(failure)}); move it away"
                ) from failure

    def _keep_private(self) -> None:
        """Of the files that are there, and by them of those that SQLite makes. What fails here, opening will tell."""
        with contextlib.suppress(OSError):
            # One that is there is never opened here: closing it would give SQLite's lock on it away.
            os.close(os.open(self.file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _PRIVATE))
        for file in (self.file, self.file.with_name(f"{self.file.name}-wal")):
            with contextlib.suppress(OSError):
                file.chmod(_PRIVATE)

    def _opened(self) -> sqlite3.Connection:
        self._keep_private()
        database = sqlite3.connect(self.file, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            # Nobody else looks into it, so it needs neither a lock for each write nor memory that processes share,
            # which not every file system has.
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA auto_vacuum = FULL")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            (answer,) = database.execute("PRAGMA quick_check(1)").fetchone()  # flash memory that lost its power
            if answer != "ok":
                raise sqlite3.DatabaseError(answer)
            database.execute("BEGIN EXCLUSIVE")
            database.execute(_TABLE)
            database.execute("COMMIT")
            columns = [row[1] for row in database.execute("PRAGMA table_info(message)")]
            if columns != ["number", "kind", "payload"]:
                raise sqlite3.DatabaseError("it is another program's")
        except BaseException:
            database.close()
            raise
        return database


def open_outbox(kind: str, place: str, *, folder: Path | None, limit: int = DEFAULT_LIMIT) -> Outbox:
    """The queue of what is sent to one place.

    Args:
        kind: of output, with which the file's name begins.
        place: that is sent to, from which the rest of the name is made.
        folder: by default `state_folder`.
        limit: as for `Outbox`.
    Raises:
        OutputError: as `Outbox`.
    """
    name = f"{kind}-{hashlib.sha256(place.encode()).hexdigest()[:12]}.queue"
    outbox = Outbox((state_folder() if folder is None else folder) / name, limit=limit)
    logger.info("messages of %s wait in %s while nobody takes them, up to %s", kind, outbox.file, format_bytes(limit))
    return outbox
