"""Writing files so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stlm_edge.errors import OutputError

logger = logging.getLogger(__name__)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    Raises:
        OutputError: if the folder cannot be made or written to, or the disk is full.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        temporary = Path(name)
        os.close(handle)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if temporary is not None:
            with suppress(OSError):  # of a folder that is gone, and what failed there is being told of
                temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically. Raises `OutputError`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data`, atomically. Raises `OutputError`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def make_folder(path: Path) -> None:
    """Make `path` and its parents, and try whether it can be written to. Raises `OutputError`."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise cannot_write(path, error) from error


def require_place(path: Path) -> None:
    """Make sure, before long work, that a file can probably be written at `path`; nothing is made.

    Raises `OutputError` if what there is of its folder is no folder or may not be written to.
    """
    folder = path.absolute().parent
    try:
        while not folder.exists():
            folder = folder.parent
    except OSError as error:  # a folder above may not be looked into
        raise cannot_write(path, error) from error
    if not folder.is_dir():
        raise cannot_write(path, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise cannot_write(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def lock(descriptor: int, path: Path) -> None:
    """Keep other programs that ask for this lock from writing what `descriptor` has open, by whatever name.

    The lock ends with the descriptor, also where the program is killed. Where the file system knows no locks, that is
    logged.

    Args:
        path: for messages.
    Raises:
        OutputError: if somebody else has the lock.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(
            f"{path} is being written by another program or output, expected nobody else to; give each a place of its "
            "own, or end the other one"
        ) from None
    except OSError as error:
        logger.warning("%s cannot be locked (%s); see that no other program writes there", path, error.strerror)


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The one line for a place that cannot be written to."""
    reason = error.strerror or str(error)
    return OutputError(f"cannot write {path} ({reason}); free space there or choose another place")


def cache_folder() -> Path:
    """What can be had again lies here: `$XDG_CACHE_HOME/stlm-edge`, by default `~/.cache/stlm-edge`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stlm-edge"


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content. Raises `OSError`."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
