"""Unpacking archives that come from elsewhere: nothing outside the folder, no links, all of it or nothing."""

from __future__ import annotations

import errno
import logging
import lzma
import posixpath
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from stlm_edge.errors import DataError, OutputError, one_line, shown
from stlm_edge.files import cannot_write, folder_beside, require_regular

logger = logging.getLogger(__name__)

MOST_MEMBERS, MOST_BYTES = 500_000, 200 * 10**9
"""Of an archive, unpacked; the paper's largest data set has 15,000 files of 5 GB."""
MOST_RATIO, SMALL_BYTES = 100, 10**9
"""How much larger than the archive it may be: pictures are hardly compressed. Up to a gigabyte nobody asks."""


def unpack(archives: Sequence[Path], target: Path, *, find_content: Callable[[Path], Path]) -> None:
    """Unpack into a temporary folder beside `target`, which becomes `target` when everything is there.

    Args:
        archives: tar (plain, gz, bz2, xz) or zip, told by their content.
        find_content: gets the folder with what was unpacked, returns that or a folder in it, which becomes `target`;
            raises when the content is not what it should be.
    Raises:
        OutputError: if `target` exists and is not an empty folder, or cannot be written.
        DataError: if an archive is damaged, cut short or none, has a member that would lie outside, or unpacks to more
            than any data set has.
    """
    require_free(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with folder_beside(target) as temporary:
            # The temporary folder is closed to others, what is in it gets the usual rights.
            folder = temporary / "content"
            folder.mkdir()
            for archive in archives:
                extract(archive, folder)
            find_content(folder).replace(target)
    except OSError as error:
        raise cannot_write(target, error) from error


def require_free(target: Path) -> None:
    """Raises `OutputError` if `target` is there already, unless it is an empty folder."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise OutputError(f"{target} exists and is not overwritten; use it, delete it, or choose another folder")


def extract(archive: Path, folder: Path) -> None:
    """Unpack one archive into `folder`. Raises `DataError`, and `OSError` for what cannot be written."""
    try:
        require_regular(archive)
        packed = archive.stat().st_size
        with archive.open("rb"):
            pass
    except OSError as error:
        raise DataError(f"{archive} cannot be read ({error.strerror or error}); check the path") from None
    account = _Account(archive, packed)
    try:
        if (file := _opened_tar(archive)) is not None:
            with file:
                _extract_tar(file, folder, account)
        elif zipfile.is_zipfile(archive):
            _extract_zip(archive, folder, account)
        else:
            raise DataError(f"{archive} is neither a tar nor a zip archive; fetch it again")
    except (tarfile.TarError, zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise _damaged(archive, error) from None
    except (ValueError, LookupError, NotImplementedError, RecursionError, struct.error) as error:
        raise _damaged(archive, error) from None  # headers that say impossible things
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise _damaged(archive, "it has a name that is too long for this disk") from None
        if error.errno is None:  # gzip and bz2 report damage so; what the system reports has a number
            raise _damaged(archive, error) from None
        raise


class _Account:
    """What has come out of an archive so far, and whether that can still be honest."""

    def __init__(self, archive: Path, packed_bytes: int) -> None:
        self._archive = archive
        self._most_bytes = min(MOST_BYTES, max(SMALL_BYTES, MOST_RATIO * packed_bytes))
        self._bytes = 0
        self._files: set[PurePosixPath] = set()
        self._folders: set[PurePosixPath] = set()

    def add(self, name: str, size: int, *, is_folder: bool) -> None:
        """Count a member before it is written. Raises `DataError`."""
        path = PurePosixPath(posixpath.normpath(name))
        folders = {path, *path.parents} if is_folder else set(path.parents)
        twice = path in self._files or (not is_folder and path in self._folders) or folders & self._files
        self._folders |= folders
        if not is_folder:
            self._files.add(path)
            self._bytes += size
        if twice:
            raise _damaged(self._archive, f"it has {shown(name)} twice")
        if len(self._files) + len(self._folders) > MOST_MEMBERS or self._bytes > self._most_bytes:
            raise DataError(
                f"{self._archive} unpacks to more than {MOST_MEMBERS} files or {self._most_bytes} bytes, expected a "
                "data set of pictures, so nothing was unpacked; unpack it by hand if you trust it"
            )


class _Member(tarfile.TarInfo):
    """A member whose own description is of a size that fits into memory."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        describes = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        if self.type in (*describes, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK) and self.size > 1 << 20:
            raise tarfile.ReadError(f"a name or description of {self.size} bytes")
        return super()._proc_member(tar)  # type: ignore[misc,no-any-return]  # tarfile's own way to extend it


def _opened_tar(archive: Path) -> tarfile.TarFile | None:
    """None if it is no tar, in none of the compressions; damage within is found when it is read."""
    try:
        return tarfile.open(archive, tarinfo=_Member)
    except tarfile.ReadError:
        return None


def _extract_tar(file: tarfile.TarFile, folder: Path, account: _Account) -> None:
    from tqdm import tqdm  # of the extra that fetches; the ground floor does without

    archive = Path(str(file.name))
    if not hasattr(tarfile, "data_filter"):
        raise DataError(
            f"this Python cannot unpack {archive} safely; update it (3.10.12, 3.11.4 or later), or unpack by hand"
        )
    with tqdm(desc=f"unpacking {archive.name}", unit=" files") as progress:
        for member in file:
            if member.name.startswith("/"):  # the filter would make a relative one of it
                raise _outside(archive, member.name)
            try:
                checked = tarfile.data_filter(member, str(folder))
            except tarfile.FilterError:
                raise _outside(archive, member.name) from None
            if checked.islnk() or checked.issym():
                # No data set needs links, and a link is how a later member could get outside.
                logger.warning("left out the link %s of %s", one_line(member.name), archive)
                continue
            account.add(checked.name, checked.size, is_folder=checked.isdir())
            file.extract(checked, folder, filter="data")
            progress.update()
    _require_end(file, archive)


def _require_end(file: tarfile.TarFile, archive: Path) -> None:
    """Raises unless an archive ends as one does: tarfile takes the first header that is none for the end.

    The rest is read too, since a compressed file's check sum stands behind it.
    """
    stream = file.fileobj
    assert stream is not None
    stream.seek(file.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise _damaged(archive, "it breaks off before its end")
    while stream.read(1 << 20):
        pass


def _extract_zip(archive: Path, folder: Path, account: _Account) -> None:
    from tqdm import tqdm  # of the extra that fetches; the ground floor does without

    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        for member in members:
            parts = PurePosixPath(member.filename).parts
            # Backslashes and drive letters mean something on some systems only: nobody needs them.
            odd = re.search(r"\\|^/|^[A-Za-z]:", member.filename)
            if odd or ".." in parts or stat.S_ISLNK(member.external_attr >> 16):
                raise _outside(archive, member.filename)
            if member.flag_bits & 1:
                raise DataError(f"{archive} is encrypted; unpack it by hand")
            account.add(member.filename, member.file_size, is_folder=member.is_dir())
        for member in tqdm(members, desc=f"unpacking {archive.name}", unit=" files"):
            file.extract(member, folder)


def descend(folder: Path, *, until: Callable[[Path], bool]) -> Path:
    """Go down while a folder holds one folder and nothing else, but no further than where `until` says stop."""
    while not until(folder):
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith((".", "__MACOSX"))]
        if len(entries) != 1 or not entries[0].is_dir():
            break
        folder = entries[0]
    return folder


def _damaged(archive: Path, error: Exception | str) -> DataError:
    return DataError(f"{archive} is damaged or of an unknown kind ({error}); delete it and fetch it again")


def _outside(archive: Path, name: str) -> DataError:
    return DataError(
        f"{archive} has a member {shown(name)} that would lie outside of the folder or link out of it, so nothing was "
        "unpacked; do not use this archive"
    )
