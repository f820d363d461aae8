"""Unpacking archives that come from elsewhere: nothing outside the folder, no links, all of it or nothing."""

from __future__ import annotations

import logging
import lzma
import re
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from stlm_edge.errors import DataError, OutputError
from stlm_edge.files import cannot_write

logger = logging.getLogger(__name__)


def unpack(archives: Sequence[Path], target: Path, *, find_content: Callable[[Path], Path]) -> None:
    """Unpack into a temporary folder beside `target`, which becomes `target` when everything is there.

    Args:
        archives: tar (plain, gz, bz2, xz) or zip, told by their content.
        find_content: gets the folder with what was unpacked, returns that or a folder in it, which becomes `target`;
            raises when the content is not what it should be.
    Raises:
        OutputError: if `target` exists and is not an empty folder, or cannot be written.
        DataError: if an archive is damaged or none, or has a member that would lie outside.
    """
    require_free(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as temporary:
            # The temporary folder is closed to others, what is in it gets the usual rights.
            folder = Path(temporary) / "content"
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
        with archive.open("rb"):
            pass
    except OSError as error:
        raise DataError(f"{archive} cannot be read ({error.strerror or error}); check the path") from None
    try:
        if tarfile.is_tarfile(archive):
            _extract_tar(archive, folder)
        elif zipfile.is_zipfile(archive):
            _extract_zip(archive, folder)
        else:
            raise DataError(f"{archive} is neither a tar nor a zip archive; fetch it again")
    except (tarfile.TarError, zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise _damaged(archive, error) from None
    except OSError as error:
        if error.errno is None:  # gzip and bz2 report damage so; what the system reports has a number
            raise _damaged(archive, error) from None
        raise


def _extract_tar(archive: Path, folder: Path) -> None:
    from tqdm import tqdm  # of the extra that fetches; the ground floor does without

    if not hasattr(tarfile, "data_filter"):
        raise DataError(
            f"this Python cannot unpack {archive} safely; update it (3.10.12, 3.11.4 or later), or unpack by hand"
        )
    with tarfile.open(archive) as file, tqdm(desc=f"unpacking {archive.name}", unit=" files") as progress:
        for member in file:
            try:
                checked = tarfile.data_filter(member, str(folder))
            except tarfile.FilterError:
                raise _outside(archive, member.name) from None
            if checked.islnk() or checked.issym():
                # No data set needs links, and a link is how a later member could get outside.
                logger.warning("left out the link %s of %s", member.name, archive)
                continue
            file.extract(checked, folder, filter="data")
            progress.update()


def _extract_zip(archive: Path, folder: Path) -> None:
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
        for member in tqdm(members, desc=f"unpacking {archive.name}", unit=" files"):
            try:
                file.extract(member, folder)
            except NotImplementedError as error:
                raise _damaged(archive, error) from None


def descend(folder: Path, *, until: Callable[[Path], bool]) -> Path:
    """Go down while a folder holds one folder and nothing else, but no further than where `until` says stop."""
    while not until(folder):
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith((".", "__MACOSX"))]
        if len(entries) != 1 or not entries[0].is_dir():
            break
        folder = entries[0]
    return folder


def _damaged(archive: Path, error: Exception) -> DataError:
    return DataError(f"{archive} is damaged or of an unknown kind ({error}); delete it and fetch it again")


def _outside(archive: Path, name: str) -> DataError:
    return DataError(
        f"{archive} has a member {name!r} that would lie outside of the folder or link out of it, so nothing was "
        "unpacked; do not use this archive"
    )
