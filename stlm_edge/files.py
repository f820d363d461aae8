"""Writing files so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stlm_edge.errors import OutputError

logger = logging.getLogger(__name__)

NEW_FILE = 0o666
"""Mode of a file that `open` makes, of which the umask takes its part."""

LONGEST_NAME = 255
"""Bytes of a file's name, on all usual file systems."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    Nothing is asked of the file system that a stick or a share may refuse: its mode is what a new file gets there, and
    nobody changes it afterwards.

    Raises:
        OutputError: if the folder cannot be made or written to, or the disk is full.
    """
    temporary: Path | None = None
    handle: int | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = _open_temporary(path)
        yield temporary
        with temporary.open("rb") as written:
            sync(written.fileno())
        _put(temporary, path)
        temporary = None
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if temporary is not None:
            with suppress(OSError):  # of a folder that is gone, and what failed there is being told of
                temporary.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def _open_temporary(path: Path) -> tuple[int, Path]:
    """A file beside `path`, and a descriptor that holds its lock. Raises `OSError`.

    Its name is always the same, so that the next run writes over what a killed one left behind. Where somebody else is
    writing, who holds the lock, or a share knows no locks, it gets a name of its own.
    """
    temporary = temporary_name(path)
    with suppress(OSError):
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, NEW_FILE)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have renamed it between our two calls.
            if os.path.samestat(os.fstat(handle), temporary.stat()):
                os.ftruncate(handle, 0)
                return handle, temporary
        except OSError:
            os.close(handle)
            raise
        os.close(handle)
    temporary = path.with_name(f".{secrets.token_hex(4)}{temporary.name}")
    return os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, NEW_FILE), temporary


def _put(temporary: Path, path: Path) -> None:
    """Let `temporary` take the place of `path`, in one step where the file system can."""
    try:
        temporary.replace(path)
    except FileExistsError:  # a share that renames over nothing
        path.unlink()
        temporary.rename(path)


def sync(handle: int) -> None:
    """Wait until the disk has what was written; a file system that knows no such thing has what it was given.

    Raises `OSError`, such as of a full disk.
    """
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise


def temporary_name(path: Path) -> Path:
    """Where `replacing` writes first: hidden, and with the suffix that writers go by."""
    suffix = path.suffix if len(path.suffix) < 16 else ""
    name = f".{path.name}.tmp{suffix}"
    if len(os.fsencode(name)) > LONGEST_NAME - 9:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.tmp{suffix}"
    return path.with_name(name)


def remove_left_over(path: Path) -> None:
    """Remove what killed runs of earlier versions left beside `path`, of files or folders that are no longer written.

    Raises `OutputError`.
    """
    name = glob.escape(path.name)
    random = "[a-z0-9_]" * 8
    try:
        for left in path.parent.glob(f".{name}.{random}{glob.escape(path.suffix)}"):
            handle = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
            except BlockingIOError:  # somebody is writing it
                continue
            finally:
                os.close(handle)
    except OSError as error:
        raise cannot_write(path, error) from error


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


def home() -> Path:
    """The user's; for a bare user number without `HOME` `/dev/null`, a place in which nobody can make anything."""
    try:
        return Path.home()
    except RuntimeError:  # neither HOME nor a line in /etc/passwd
        return Path(os.devnull)


def cache_folder() -> Path:
    """What can be had again lies here: `$XDG_CACHE_HOME/stlm-edge`, by default `~/.cache/stlm-edge`.

    Whoever writes there does without where it cannot be written to, and says so.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or home() / ".cache") / "stlm-edge"


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content. Raises `OSError`."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
