"""Fetching a published file: resumable, and checked before anyone sees it."""

from __future__ import annotations

import http.client
import logging
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from stlm_edge.errors import DownloadError
from stlm_edge.files import cannot_write, sha256

logger = logging.getLogger(__name__)

TIMEOUT_S = 30.0
BLOCK_BYTES = 1 << 20
MOST_BYTES = 16 * 10**9
"""Of a file; the largest that is published here has 2.6 GB."""


@dataclass(frozen=True)
class Published:
    """A file that its owners offer for download.

    Attributes:
        sha256: in hexadecimal digits; None where nobody whom one could trust has published it.
    """

    url: str
    sha256: str | None
    licence: str

    @property
    def file_name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


def fetch(published: Published, *, folder: Path) -> Path:
    """Return the file's path in `folder`, downloading what is missing of it.

    What has arrived stays in `<name>.part`, also after Ctrl-C, and the next call goes on from there. Where the hash is
    not known, a warning says so and names the one that was found.

    Raises:
        DownloadError: if the server cannot be reached or stops early, or what came is not the published file (it is
            deleted then).
        OutputError: if the folder cannot be written to.
    """
    path = folder / published.file_name
    if path.is_file():
        found = sha256(path)
        if published.sha256 is None:
            warn_of_unknown_hash(path, found)
        if published.sha256 in (None, found):
            return path
        logger.warning("%s has another SHA-256 than the published file; fetching it again", path)
    part = path.with_name(path.name + ".part")
    logger.info("fetching %s (licence: %s) into %s", published.url, published.licence, folder)
    try:
        _download(published, part)
        found = sha256(part)
        if published.sha256 is None:
            warn_of_unknown_hash(path, found)
        elif found != published.sha256:
            part.unlink()
            raise DownloadError(
                f"{published.url} gave a file with SHA-256 {found}, expected {published.sha256}; try again, and if it "
                f"stays so put a file you trust at {path}"
            )
        part.replace(path)
    except KeyboardInterrupt:
        logger.warning("interrupted; what has arrived stays in %s, run again to go on from there", part)
        raise
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise DownloadError(
            f"{published.url} cannot be fetched ({error}); run again to go on from what has arrived, or put the file "
            f"at {path} by hand"
        ) from None
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def warn_of_unknown_hash(path: Path, found: str) -> None:
    """Say aloud that a file could not be checked, and what could be compared by hand."""
    logger.warning("NOT CHECKED: no trustworthy SHA-256 of %s is known; it has %s", path.name, found)


def _download(published: Published, part: Path) -> None:
    from tqdm import tqdm  # of the extra that fetches; the ground floor does without

    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(published.url)
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if have and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            _check_complete(published, part, have, error.headers.get("Content-Range"))
            return
        raise
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        length = response.headers.get("Content-Length")
        start = have if resumed else 0
        # Python makes no number of thousands of digits, and none of more than twenty is a file's.
        total = start + int(length[:20]) if length and length.isdecimal() else None
        answered = response.headers.get("Content-Range") or f"bytes {have}-"
        if resumed and not answered.startswith(f"bytes {have}-"):
            part.unlink()
            raise DownloadError(
                f"{published.url} was asked for what comes from byte {have} on and answered with {answered}; what had "
                "arrived was deleted, run again to fetch all of it"
            )
        if total is not None and total > MOST_BYTES:
            raise _too_large(published, f"has {total} bytes")
        part.parent.mkdir(parents=True, exist_ok=True)  # not before there is something to keep
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(desc=published.file_name, total=total, initial=start, unit="B", unit_scale=True) as progress,
        ):
            while block := response.read(BLOCK_BYTES):
                file.write(block)
                progress.update(len(block))
                if file.tell() > MOST_BYTES:
                    part.unlink()
                    raise _too_large(published, "sends more and more")
    # A connection that is cut looks like the end of the file to http.client when it is read in blocks.
    arrived = part.stat().st_size
    if total is not None and arrived < total:
        raise DownloadError(
            f"{published.url} stopped after {arrived} of {total} bytes; run again to go on from what has arrived"
        )


def _too_large(published: Published, found: str) -> DownloadError:
    return DownloadError(
        f"{published.url} {found}, expected at most {MOST_BYTES}: it is not the published file; fetch it by hand"
    )


def _check_complete(published: Published, part: Path, have: int, content_range: str | None) -> None:
    """The server has nothing after what is there: all of it, or a file of another size (then it is deleted)."""
    size = (content_range or "").rpartition("/")[2]
    if size.isdigit() and int(size) != have:
        part.unlink()
        raise DownloadError(
            f"{part} had {have} bytes, {published.url} has {size}; it was deleted, run again to fetch the whole file"
        )
