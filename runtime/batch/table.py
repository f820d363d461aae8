"""`scores.csv` and `run.json` in the folder of results: what has been inspected, and how.

A run that is killed loses at most the pictures in hand, and the next one goes on after them. A power cut may also lose
the last rows that the system had not put on disk yet; those pictures are inspected again. The checksum of each row is
kept in a hidden file, so that a run does not go on with rows that nobody wrote.
"""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runtime.batch.rows import COLUMNS, encoded, read_rows
from runtime.closing import Closing
from stlm_edge.errors import OutputError, shown
from stlm_edge.files import cannot_write, folder_for, lock, make_folder, write_bytes, write_text
from stlm_edge.names import cell, defused, from_cell, printable
from stlm_edge.records import read_object

logger = logging.getLogger(__name__)

TABLE, RECORD, OVERLAYS = "scores.csv", "run.json", "overlays"
CHECKSUMS = f".{TABLE}.crc32"
"""See `runtime.batch.rows`."""

_ELSEWHERE = "give another folder, or --restart to remove what is there"


@dataclass(frozen=True)
class RunSettings:
    """What all rows of a table have in common; a run with others does not go on with it.

    Attributes:
        engine_sha256: of the engine.
        threshold: of the score.
        root: folder that the paths are below, absolute.
        area: what is inspected of a picture, by its files and pixels; None for all of it.
        tile: size of the tiles, in words; None for whole pictures.
        overlays: which pictures have one.
        unclear: the score from which on a picture below the threshold is unclear; None for none.
    """

    engine_sha256: str
    threshold: float
    root: str
    area: str | None
    tile: str | None
    overlays: str
    unclear: float | None = None


@dataclass(frozen=True)
class PictureRow:
    """One picture in the table.

    Attributes:
        path: below the run's root; here as it is, in the file as `stlm_edge.names.cell` writes it.
        score, anomalous, regions, seconds: None where it could not be read. `seconds` are those of the whole batch
            that it was in, from the picture to the verdict.
        label: escaped; None where it is not known.
        error: why it could not be read.
    """

    path: str
    score: float | None
    threshold: float
    anomalous: bool | None
    regions: int | None
    label: str | None
    seconds: float | None
    error: str | None = None

    def cells(self) -> list[str]:
        """As they stand in the file; a score with as many digits as it has."""
        return [
            cell(self.path),
            "" if self.score is None else f"{self.score:.9g}",
            f"{self.threshold!r}",
            "" if self.anomalous is None else str(self.anomalous),
            "" if self.regions is None else str(self.regions),
            defused(self.label or ""),
            "" if self.seconds is None else f"{self.seconds:.4f}",
            defused(printable(self.error or "")),
        ]


class ScoreTable(Closing):
    """The table of a folder of results. Owns the folder until `close`; each row is the system's as soon as it is added.

    Attributes:
        done: names of the pictures that earlier runs have inspected.
    """

    def __init__(self, folder: Path, settings: RunSettings, *, restart: bool) -> None:
        """Open the table, or begin it; a torn last line and pictures that could not be read are to be done again.

        Args:
            restart: remove the table and the overlays of an earlier run.
        Raises:
            OutputError: if the folder cannot be written to, is another run's, or holds results of other settings or
                other programs, or rows that were changed.
        """
        self._folder = folder
        self._path = folder / TABLE
        self._settings = settings
        self._files: tuple[io.FileIO, ...] = ()
        with folder_for(folder):
            self._locked: int | None = self._lock()
            try:
                _require_own_record(folder)
                if restart:
                    _remove(folder)
                rows = _earlier(folder, settings)
                _remove_torn_files(folder)
                self._rows = {from_cell(row[0]): row for row in rows if not row[COLUMNS.index("error")]}
                self.done = frozenset(self._rows)
                self._write_all()
            except BaseException:
                self.close()
                raise

    def add(self, row: PictureRow) -> None:
        """Append a row; a table that was moved or deleted is written anew. Raises `OutputError`."""
        cells = row.cells()
        try:
            if self._is_in_place():
                for file, data in zip(self._files, encoded([cells]), strict=True):
                    _append(file, data)
                self._rows[row.path] = cells
            else:
                logger.warning("%s was moved or deleted while it was written; it is written anew, in whole", self._path)
                self._rows[row.path] = cells
                make_folder(self._folder)
                self._unlock()
                self._locked = self._lock()
                self._write_all()
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def put_in_order(self, names: Iterable[str]) -> None:
        """Have the rows stand as one run without a stop would have written them. Raises `OutputError`."""
        ordered = {name: self._rows[name] for name in names if name in self._rows}
        # Pictures that are no longer there come first, as they were.
        ordered = {name: row for name, row in self._rows.items() if name not in ordered} | ordered
        if list(ordered) != list(self._rows):
            self._rows = ordered
            self._write_all()

    def close(self) -> None:
        for file in self._files:
            file.close()
        self._files = ()
        self._unlock()

    def _lock(self) -> int:
        """Keep other runs out of the folder, whose descriptor has the lock since the files in it are replaced."""
        try:
            descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise cannot_write(self._folder, error) from error
        try:
            lock(descriptor, self._folder)
        except OutputError:
            os.close(descriptor)
            raise
        return descriptor

    def _unlock(self) -> None:
        locked, self._locked = self._locked, None
        if locked is not None:
            os.close(locked)

    def _is_in_place(self) -> bool:
        """Whether the table is where it should be. Raises `OutputError` if another one is."""
        own = os.fstat(self._files[0].fileno())
        try:
            found = self._path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        if not os.path.samestat(found, own) or found.st_size != self._files[0].tell():
            raise OutputError(
                f"{self._path} was changed by another program while it was written; move it away and give the same "
                "command again"
            )
        return True

    def _write_all(self) -> None:
        """Write the record, the table and its checksums anew, and open both to go on with them."""
        for file in self._files:
            file.close()
        self._files = ()
        write_text(self._folder / RECORD, json.dumps(dataclasses.asdict(self._settings), indent=2) + "\n")
        table, checksums = encoded(self._rows.values())
        paths = (self._path, self._folder / CHECKSUMS)
        # The checksums first: a row without one is done again, one without its row is nothing.
        write_bytes(paths[1], checksums)
        write_bytes(paths[0], encoded([COLUMNS])[0] + table)
        try:
            self._files = tuple(io.FileIO(path, "a") for path in paths)
            for file in self._files:
                file.seek(0, os.SEEK_END)
        except OSError as error:
            raise cannot_write(self._path, error) from error


def _require_own_record(folder: Path) -> None:
    """Raises `OutputError` if the record is another program's; a training calls its own by the same name."""
    record, has_table = folder / RECORD, (folder / TABLE).exists()
    remedy = "give another folder, or move that file away"
    try:
        found = read_object(record, error=OutputError, remedy=remedy)
    except FileNotFoundError:
        return
    except OutputError:
        if has_table:  # damaged: beside a table it is told of with that, and can be removed
            return
        raise
    if "engine_sha256" not in found and (found or not has_table):
        raise OutputError(f"{record} is of another program, a training or the like, and would be overwritten; {remedy}")


def _earlier(folder: Path, settings: RunSettings) -> list[list[str]]:
    """The complete rows of an earlier run with the same settings; none without one."""
    table, record = folder / TABLE, folder / RECORD
    if not table.exists():
        return []
    try:
        found = read_object(record, error=OutputError, remedy=_ELSEWHERE)
    except FileNotFoundError as error:
        raise OutputError(f"{table} has no {RECORD} beside it that says of which engine it is; {_ELSEWHERE}") from error
    for name, value in dataclasses.asdict(settings).items():
        before = found.get(name)
        if before != value:
            said = before if isinstance(before, str) else shown(before)
            raise OutputError(f"{table} is of an earlier run with {name} {said}, this one has {value}; {_ELSEWHERE}")
    return read_rows(table, folder / CHECKSUMS, remedy=_ELSEWHERE)


def _append(file: io.FileIO, data: bytes) -> None:
    """Raises `OSError`; the half of a row that may stand there then is taken back if it can be."""
    end, left = file.tell(), data
    try:
        while left:
            left = left[file.write(left) :]
    except OSError:
        with suppress(OSError):
            file.truncate(end)
        raise


def _remove_torn_files(folder: Path) -> None:
    """Remove what `stlm_edge.files.replacing` leaves behind where it is killed."""
    overlays = [*(folder / OVERLAYS).rglob(".*.jpg.????????.jpg"), *(folder / OVERLAYS).rglob(".*.tmp.jpg")]
    try:
        own = [
            path for name in (TABLE, RECORD, CHECKSUMS) for path in folder.glob(f".{name}.????????{Path(name).suffix}")
        ]
        for path in [*own, *overlays]:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


def _remove(folder: Path) -> None:
    """Remove the results of an earlier run, and no overlays that it cannot have written."""
    try:
        if (folder / RECORD).exists() and (folder / OVERLAYS).exists():
            shutil.rmtree(folder / OVERLAYS)
        for name in (TABLE, RECORD, CHECKSUMS):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
