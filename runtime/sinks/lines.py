"""A file of lines that survives power cuts, full disks and months: it appends, mends its end, and rotates."""

from __future__ import annotations

import io
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runtime.closing import Closing
from runtime.uri import format_bytes, size_in_bytes, whole_number
from stlm_edge.errors import OutputError
from stlm_edge.files import cannot_write

logger = logging.getLogger(__name__)

ROTATION_OPTIONS = {"rotate": size_in_bytes(least=10**4), "keep": whole_number(least=1)}

_LONGEST_LINE = 1 << 18
_SYNC_S = 1.0


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

    After a failed write the file is opened anew for the next line, so that a network share may go and come back.
    """

    def __init__(
        self,
        path: Path,
        *,
        rotation: Rotation,
        header: str = "",
        is_whole: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """
        Args:
            header: first line of each file; empty for none.
            is_whole: whether a last line that lacks its line feed is complete otherwise, and is kept.
        Raises:
            OutputError: if the file cannot be written, or has another header.
        """
        self._path = path
        self._rotation = rotation
        self._header = f"{header}\n".encode() if header else b""
        self._is_whole = is_whole
        self._file: io.FileIO | None = None
        self._size = 0
        self._synced_s = time.monotonic()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._opened()
        except OSError as error:
            self._abandon()
            raise cannot_write(path, error) from error
        except OutputError:
            self._abandon()
            raise
        logger.info(
            "%s is set aside when it has %s; %d old ones are kept", path, format_bytes(rotation.rotate), rotation.keep
        )

    def write(self, line: str) -> None:
        """Append one line, given without its line feed. Raises `OutputError`; then nothing of the line is there."""
        data = f"{line}\n".encode()
        try:
            file = self._opened()
            if len(self._header) < self._size and self._size + len(data) > self._rotation.rotate:
                self._set_aside()
                file = self._opened()
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

    def _opened(self) -> io.FileIO:
        if self._file is None:
            file = self._file = io.FileIO(self._path, "a+")
            self._size = os.fstat(file.fileno()).st_size
            self._mend(file)
            self._check_header(file)
        return self._file

    def _mend(self, file: io.FileIO) -> None:
        """Have the file end with a line feed."""
        file.seek(max(0, self._size - _LONGEST_LINE))
        tail = file.read(min(self._size, _LONGEST_LINE))
        if not tail or tail.endswith(b"\n"):
            return
        torn = tail[tail.rfind(b"\n") + 1 :]
        if len(torn) == _LONGEST_LINE:
            raise OutputError(
                f"{self._path} exists and does not consist of lines; choose another file, or move it away"
            )
        text = torn.decode("utf-8", "backslashreplace")
        if self._is_whole(text):
            self._append(file, b"\n")
            return
        file.truncate(self._size - len(torn))
        self._size -= len(torn)
        logger.warning("%s ended in half a line, as after a power cut; it was cut off: %.200r", self._path, text)

    def _check_header(self, file: io.FileIO) -> None:
        if self._size == 0:
            self._append(file, self._header)
            return
        file.seek(0)
        found = file.read(len(self._header))
        if found != self._header:
            first_line = found.decode("utf-8", "backslashreplace").partition("\n")[0]
            raise OutputError(
                f"{self._path} exists and begins with {first_line!r} instead of {self._header.decode().strip()!r}; "
                "choose another file, or move it away"
            )

    def _append(self, file: io.FileIO, data: bytes) -> None:
        left = data
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            # What was written of the line is taken back at once. Where even that fails, `_mend` does it later.
            with suppress(OSError):
                file.truncate(self._size)
            raise
        self._size += len(data)

    def _set_aside(self) -> None:
        assert self._file is not None
        self._sync(self._file)
        self._abandon()
        for number in range(self._rotation.keep - 1, 0, -1):
            with suppress(FileNotFoundError):
                self._numbered(number).replace(self._numbered(number + 1))
        self._path.replace(self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _sync(self, file: io.FileIO) -> None:
        os.fsync(file.fileno())
        self._synced_s = time.monotonic()

    def _abandon(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()
