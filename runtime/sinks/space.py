"""Keeps what a months-long run writes into a folder within a limit: the oldest of its own files go first."""

from __future__ import annotations

import logging
import re
from collections import defaultdict, deque
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from runtime.uri import format_bytes
from stlm_edge.files import cannot_write

logger = logging.getLogger(__name__)

_STAMP = r"\d{8}T\d{6}\.\d{6}Z"


def time_stamp(time: datetime) -> str:
    """For file names that are in the order of time when sorted: `20261125T225000.123456Z`."""
    return time.strftime("%Y%m%dT%H%M%S.%fZ")


class BoundedFiles:
    """Files of one folder named `<prefix><time stamp><rest><suffix>`; no other file there is counted or removed.

    Those that differ by their suffix alone belong together: they go together, in the order of the suffixes. Files
    that are half written, as a killed program leaves them, are among them. Within a run the order is that of writing,
    since clocks can go backwards; files of earlier runs are taken by name.
    """

    def __init__(self, folder: Path, *, prefix: str = "", rest: str = "", suffixes: Sequence[str], limit: int) -> None:
        """Look what is there.

        Args:
            rest: regular expression of what stands between time stamp and suffix.
            limit: bytes.
        Raises:
            OutputError: if the folder cannot be read.
        """
        self._folder = folder
        self._limit = limit
        ending = "|".join(map(re.escape, suffixes))
        # A file that is being written stands beside its final name, with a dot before it and a random word behind.
        pattern = re.compile(rf"\.?{re.escape(prefix)}(?P<stamp>{_STAMP})(?P<rest>{rest})({ending})(\.\w+({ending}))?")
        found = defaultdict[tuple[str, str], list[Path]](list)
        try:
            for path in folder.iterdir():
                if match := pattern.fullmatch(path.name):
                    found[match["stamp"], match["rest"]].append(path)
            for together in found.values():
                together.sort(key=lambda path: (suffixes.index(path.suffix), path.name))
            self._files = deque(_sized(found[key]) for key in sorted(found))
        except OSError as error:
            raise cannot_write(folder, error) from error
        self._total = sum(size for _, size in self._files)
        logger.info(
            "%s may take %s, the oldest are removed from then on; %d are there with %s",
            folder / f"{prefix}*{suffixes[0] if len(suffixes) == 1 else ''}",
            format_bytes(limit),
            len(self._files),
            format_bytes(self._total),
        )
        self._shrink()

    def add(self, *paths: Path) -> None:
        """Count files that were just finished, and remove the oldest ones if need be. Raises `OutputError`.

        Args:
            paths: that belong together, in the order in which they will go.
        """
        try:
            added = _sized(paths)
        except OSError as error:
            raise cannot_write(paths[0], error) from error
        self._files.append(added)
        self._total += added[1]
        self._shrink()

    def _shrink(self) -> None:
        """The newest stays, however large it is."""
        while self._total > self._limit and len(self._files) > 1:
            names, size = self._files[0]
            for name in names:
                try:
                    (self._folder / name).unlink(missing_ok=True)
                except OSError as error:
                    raise cannot_write(self._folder / name, error) from error
            self._files.popleft()
            self._total -= size


def _sized(paths: Sequence[Path]) -> tuple[tuple[str, ...], int]:
    """Names, and bytes of all of them. Raises `OSError`."""
    return tuple(path.name for path in paths), sum(path.stat().st_size for path in paths)
