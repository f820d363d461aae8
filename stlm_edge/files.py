"""Writing files so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import logging
import os
import resource
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stlm_edge.errors import OutputError
from stlm_edge.names import LONGEST_NAME

logger = logging.getLogger(__name__)

NEW_FILE = 0o666
"""Mode of a file that `open` makes, of which the umask takes its part."""


@contextmanager
def replacing(path: Path, *, outlives_kill: bool = False) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    Nothing is asked of the file system that a stick or a share may refuse: its mode is what a new file gets there, and
    nobody changes it afterwards.

    Args:
        outlives_kill: what a killed run leaves behind is of use, so the next one does not write over it.
    Raises:
        OutputError: if the folder cannot be made or written to, or the disk is full.
    """
    temporary: Path | None = None
    handle: int | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = _open_random(path) if outlives_kill else _open_temporary(path)
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
    return _open_random(path)


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


def _open_random(path: Path) -> tuple[int, Path]:
    """A file beside `path` that nobody else has. Raises `OSError`."""
    temporary = temporary_name(path, word=secrets.token_hex(4))
    return os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, NEW_FILE), temporary


def temporary_name(path: Path, *, word: str = "tmp") -> Path:
    """Where `replacing` writes first: hidden, and with the suffix that writers go by."""
    suffix = path.suffix if len(path.suffix) < 16 else ""
    name = f".{path.name}.{word}{suffix}"
    if len(os.fsencode(name)) > LONGEST_NAME - 9:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.{word}{suffix}"
    return path.with_name(name)


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, after those that killed runs left there are removed. Raises `OSError`."""
    remove_left_over(path)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with suppress(OSError):  # some shares know no locks
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield Path(folder)
        finally:
            os.close(handle)


def remove_left_over(path: Path) -> None:
    """Remove the temporary folders beside `path` of killed runs, and the files of those of earlier versions.

    Raises `OutputError`.
    """
    name = glob.escape(path.name)
    random = "[a-z0-9_]" * 8
    try:
        endings = {"", glob.escape(path.suffix)}
        for left in [left for ending in endings for left in path.parent.glob(f".{name}.{random}{ending}")]:
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


@contextmanager
def folder_for(path: Path) -> Iterator[None]:
    """Make `path` as `make_folder` does; of what was made, an error in the block takes away again what is empty."""
    with leaving_no_folder(path):
        make_folder(path)
        yield


@contextmanager
def leaving_no_folder(path: Path) -> Iterator[None]:
    """An error in the block takes away `path` and the folders above it again, as far as they are new and empty."""
    new = [each for each in (path, *path.parents) if not os.path.lexists(each)]
    try:
        yield
    except BaseException:
        with suppress(OSError):  # one that is not empty, and those above it
            for each in new:
                each.rmdir()
        raise


def require_place(path: Path) -> None:
    """Make sure, before long work, that a file can probably be written at `path`; nothing is made.

    Raises `OutputError` if it is a folder, or what there is of its folder is none or may not be written to.
    """
    folder = path.absolute().parent
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        while not folder.exists():
            folder = folder.parent
    except OSError as error:  # a folder above may not be looked into
        raise cannot_write(path, error) from error
    if not folder.is_dir():
        raise cannot_write(path, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    if not os.access(folder, os.W_OK | os.X_OK):
        code = errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
        raise cannot_write(path, OSError(code, os.strerror(code)))


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


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within the block, no other program that asks for it gets this folder; see `lock`, which says what is raised."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        lock(handle, folder)
        yield
    finally:
        os.close(handle)


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The one line for a place that cannot be written to, with the remedy for what the system says of it."""
    return OutputError(f"cannot write {path} ({error.strerror or error}); {remedy(error)}")


def remedy(error: OSError) -> str:
    """What to do where writing failed with `error`."""
    return _REMEDIES.get(error.errno, _UNKNOWN)


def require_room(file: Path, *, reserve: int) -> None:
    """Raises `OSError` if not so many bytes can be added to `file`; for libraries that do not tell of a failed write.

    Of a limit on the size of files at most half is kept in reserve.
    """
    code = 0
    if shutil.disk_usage(file.parent).free < reserve:
        code = errno.ENOSPC
    most, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if most != resource.RLIM_INFINITY and file.stat().st_size + min(reserve, most // 2) > most:
        code = errno.EFBIG
    if code:
        raise OSError(code, os.strerror(code))


_UNKNOWN = "see that there is space and permission to write there, or choose another place"
_REMEDIES: dict[int | None, str] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free space there or choose another place"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "get permission to write there or choose another place"),
    errno.EFBIG: "files may not grow so large there (see ulimit -f); raise that or choose another place",
    errno.EROFS: "mount it so that it can be written to, or choose another place",
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "a part of that path is a file and no folder; choose another path"),
    errno.EISDIR: "that is a folder; name a file in it",
    **dict.fromkeys((errno.ENXIO, errno.EPIPE), "that is a pipe and nobody reads from it; start its reader first"),
    errno.ENOENT: "its folder is not there; make it or choose another path",
    errno.ELOOP: "its links lead in a circle; choose another path",
    errno.ENAMETOOLONG: "choose a shorter name",
}


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


def state_folder() -> Path:
    """Where programs keep what must outlive them: systemd's `StateDirectory=`, or `~/.local/state/stlm-edge`."""
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_STATE_HOME") or home() / ".local" / "state") / "stlm-edge"


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content. Raises `OSError`."""
    require_regular(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def require_regular(path: Path) -> None:
    """Raises `OSError` for what is no file: a pipe would be waited for, and a device read, without end."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"it is {kind_of(mode)}, expected a file", str(path))


def kind_of(mode: int) -> str:
    """What an entry of a folder is that is no file, by its mode."""
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")
