"""A file of lines that survives power cuts, full disks, log rotation and months of its own."""

from __future__ import annotations

import io
import logging
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runtime.closing import Closing
from runtime.uri import format_bytes, size_in_bytes, whole_number
from stlm_edge.errors import OutputError
from stlm_edge.files import NEW_FILE, cannot_write, lock, sync

logger = logging.getLogger(__name__)

ROTATION_OPTIONS = {"rotate": size_in_bytes(least=10**4), "keep": whole_number(least=1)}

_LONGEST_LINE = 1 << 18
_SYNC_S = 1.0
_ROTATED_AGAIN_S = 60.0
"""How long a file that could not be set aside grows on until that is tried again."""

LastLine = Literal["whole", "torn", "foreign"]


@dataclass(frozen=True)
class Rotation:
    """How much of the past is kept.

    Attributes:
        rotate: bytes from which on a file is set aside and a new one is begun.
        keep: how many are kept besides the current one; the oldest goes first.
    """

    rotate: int = 10**8
    keep: int = 20


class LineFile(Closing):
    """Appends lines. Set aside, `events.jsonl` becomes `events.jsonl.1`, that one `.2`, and so on.

    These are the names and the renaming of logrotate, which log shippers follow: they go on reading a renamed file
    until its end, and a pattern `*.jsonl` sees each line once.

    A line is in the kernel's hands when `write` returns, so a killed program loses none. A power cut loses what came
    since the last fsync, which is made once a second while lines come: for each line it would hold up the next ones
    and wear out the flash memory of small machines. The half line that a power cut may leave at the end is cut off,
    and put into the log, when the file is opened again.

    Before each line it is looked where the path leads. A file that was moved, deleted or replaced is left to whoever
    did so, and the lines go on in the one that is at the path now; its folder is made again if need be. One that was
    emptied (logrotate's `copytruncate`) is gone on with. The file is locked, since two that append to one file could
    not tell whose half a line is.

    After a failed write the file is opened anew for the next line, so that a network share may go and come back.
    """

    def __init__(
        self,
        path: Path,
        *,
        rotation: Rotation,
        header: str = "",
        judge: Callable[[str], LastLine] = lambda _: "torn",
    ) -> None:
        """
        Args:
            header: first line of each file; empty for none.
            judge: what a last line is that lacks its line feed; one that is torn is cut off, others are kept.
        Raises:
            OutputError: if the file cannot be written, has another header, or somebody else has it open.
        """
        self._path = path
        self._rotation = rotation
        self._header = f"{header}\n".encode() if header else b""
        self._judge = judge
        self._file: io.FileIO | None = None
        self._size = 0
        self._is_regular = True
        self._synced_s = time.monotonic()
        self._rotates_from_s = self._synced_s
        try:
            self._open()
        except OSError as error:
            raise cannot_write(path, error) from error
        logger.info(
            "%s is set aside when it has %s; %d old ones are kept", path, format_bytes(rotation.rotate), rotation.keep
        )

    def write(self, line: str) -> None:
        """Append one line, given without its line feed. Raises `OutputError`; then nothing of the line is there."""
        data = f"{line}\n".encode("utf-8", "backslashreplace")
        try:
            file = self._current()
            if self._is_full(data) and self._set_aside(file):
                file = self._open()
            self._append(file, data)
            if time.monotonic() - self._synced_s >= _SYNC_S:
                self._sync(file)
        except OSError as error:
            self._abandon()
            raise cannot_write(self._path, error) from error

    def close(self) -> None:
        """Have the lines on the disk and close the file. Raises `OutputError`."""
        if self._file is None:
            return
        try:
            self._sync(self._file)
        except OSError as error:
            raise cannot_write(self._path, error) from error
        finally:
            self._abandon()

    def _current(self) -> io.FileIO:
        """The file that the path leads to, as it was left or opened anew."""
        if self._file is None:
            return self._open()
        own = os.fstat(self._file.fileno())
        try:
            found: os.stat_result | None = self._path.stat()
        except (FileNotFoundError, NotADirectoryError):
            found = None
        except OSError:
            # Nobody can say where the path leads, as when its folder was closed to this user.
            found = own
        if found is None or not own.st_nlink or not os.path.samestat(found, own):
            what = "was moved" if own.st_nlink else "was deleted, or moved and compressed,"
            next_one = "a new one is begun" if found is None else "the lines go on in the one that is there now"
            logger.warning("%s %s while it was written; %s", self._path, what, next_one)
            with suppress(OSError):  # of a share that is gone
                self._sync(self._file)
            return self._open()
        if self._is_regular and own.st_size != self._size:
            self._go_on_after_others(self._file, own.st_size)
        return self._file

    def _open(self) -> io.FileIO:
        self._abandon()
        place = Path(os.path.realpath(self._path))
        place.parent.mkdir(parents=True, exist_ok=True)
        # Of a pipe as one who only writes, so that the system tells where nobody reads.
        file = self._file = io.FileIO(place, "a" if place.is_fifo() else "a+", opener=_opened_at_once)
        try:
            status = os.fstat(file.fileno())
            # A device or a pipe has no end to mend, and nobody to be kept off.
            self._is_regular, self._size = stat.S_ISREG(status.st_mode), 0
            if self._is_regular:
                lock(file.fileno(), self._path)
                self._size = os.fstat(file.fileno()).st_size
                self._mend(file)
            else:
                self._append(file, self._header)
        except BaseException:
            self._abandon()
            raise
        return file

    def _mend(self, file: io.FileIO) -> None:
        """Have the file begin with the header and end with a line feed, as it may not after a power cut."""
        file.seek(max(0, self._size - _LONGEST_LINE))
        tail = file.read(min(self._size, _LONGEST_LINE))
        if len(tail) == self._size and tail != self._header and self._header.startswith(tail.rstrip(b"\0")):
            self._cut_off(file, tail)  # nothing, zeros, or half a header
            self._append(file, self._header)
            return
        self._check_header(file)
        torn = tail[tail.rfind(b"\n") + 1 :]
        if not torn:
            return
        if len(torn) == _LONGEST_LINE:
            raise OutputError(
                f"{self._path} exists and does not consist of lines; choose another file, or move it away"
            )
        judged = self._judge(torn.decode("utf-8", "backslashreplace"))
        if judged == "torn":
            self._cut_off(file, torn)
            return
        if judged == "foreign":
            logger.warning("%s ended in a line that is no verdict's and stays there: %.200r", self._path, torn)
        self._append(file, b"\n")

    def _check_header(self, file: io.FileIO) -> None:
        file.seek(0)
        found = file.read(len(self._header))
        if found != self._header:
            first_line = found.decode("utf-8", "backslashreplace").partition("\n")[0]
            raise OutputError(
                f"{self._path} exists and begins with {first_line!r} instead of {self._header.decode().strip()!r}; "
                "choose another file, or move it away"
            )

    def _cut_off(self, file: io.FileIO, torn: bytes) -> None:
        if torn:
            self._size -= len(torn)
            file.truncate(self._size)
            text = torn.decode("utf-8", "backslashreplace")
            logger.warning("%s ended in half a line, as after a power cut; it was cut off: %.200r", self._path, text)

    def _go_on_after_others(self, file: io.FileIO, size: int) -> None:
        """Somebody who asks for no lock has emptied the file, changed it or written to it; all of that stays."""
        if size < self._size:
            logger.warning("%s was cut from %d to %d bytes by another program", self._path, self._size, size)
        self._size = size
        if not size:
            self._append(file, self._header)
            return
        file.seek(size - 1)
        if file.read(1) != b"\n":
            self._append(file, b"\n")

    def _append(self, file: io.FileIO, data: bytes) -> None:
        left = data
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            # What was written of the line is taken back at once, unless somebody has written behind it. Where even that
            # fails, `_mend` does it later.
            with suppress(OSError):
                if os.fstat(file.fileno()).st_size == self._size + len(data) - len(left):
                    file.truncate(self._size)
            raise
        self._size += len(data) * self._is_regular

    def _is_full(self, data: bytes) -> bool:
        is_larger = len(self._header) < self._size and self._size + len(data) > self._rotation.rotate
        return is_larger and time.monotonic() >= self._rotates_from_s

    def _set_aside(self, file: io.FileIO) -> bool:
        """Rename the file, which stays open until that is done; False, and the lines go on in it, if that fails."""
        self._sync(file)
        place = Path(os.path.realpath(self._path))  # what a link leads to, so that the next one is there too
        try:
            for number in range(self._rotation.keep - 1, 0, -1):
                with suppress(FileNotFoundError):
                    _numbered(place, number).replace(_numbered(place, number + 1))
            place.replace(_numbered(place, 1))
        except OSError as error:
            self._rotates_from_s = time.monotonic() + _ROTATED_AGAIN_S
            logger.warning(
                "%s has %s and cannot be set aside (%s); it grows on", place, format_bytes(self._size), error.strerror
            )
            return False
        return True

    def _sync(self, file: io.FileIO) -> None:
        if self._is_regular:
            sync(file.fileno())
        self._synced_s = time.monotonic()

    def _abandon(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()


def _opened_at_once(path: str, flags: int) -> int:
    """A descriptor; without waiting for somebody to read from a pipe, which is an error. Raises `OSError`."""
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, NEW_FILE)
    os.set_blocking(descriptor, True)
    return descriptor


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
