"""Fetching a published file: resumable, and checked before anyone sees it."""

from __future__ import annotations

import http.client
import logging
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from stlm_edge.errors import WeightsError
from stlm_edge.files import cannot_write, sha256

logger = logging.getLogger(__name__)

TIMEOUT_S = 30.0
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Published:
    """A file that its owners offer for download."""

    url: str
    sha256: str
    licence: str

    @property
    def file_name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


def fetch(published: Published, *, folder: Path) -> Path:
    """Return the file's path in `folder`, downloading what is missing of it.

    What has arrived stays in `<name>.part`, and the next call goes on from there.

    Raises:
        WeightsError: if the server cannot be reached, or what came is not the published file (it is deleted then).
        OutputError: if the folder cannot be written to.
    """
    path = folder / published.file_name
    if path.is_file() and sha256(path) == published.sha256:
        return path
    part = path.with_name(path.name + ".part")
    logger.info("fetching %s (licence %s) into %s", published.url, published.licence, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _download(published, part)
        found = sha256(part)
        if found != published.sha256:
            part.unlink()
            raise WeightsError(
                f"{published.url} gave a file with SHA-256 {found}, expected {published.sha256}; try again, and if it "
                f"stays so put a file you trust at {path}"
            )
        part.replace(path)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise WeightsError(
            f"{published.url} cannot be fetched ({error}); run again to go on from what has arrived, or put the file "
            f"at {path} by hand"
        ) from None
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def _download(published: Published, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(published.url)
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is missing; the hash decides
        raise
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        length = response.headers.get("Content-Length")
        start = have if resumed else 0
        total = start + int(length) if length else None
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(desc=published.file_name, total=total, initial=start, unit="B", unit_scale=True) as progress,
        ):
            while block := response.read(BLOCK_BYTES):
                file.write(block)
                progress.update(len(block))
