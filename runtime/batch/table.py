"""`scores.csv` and `run.json` in the folder of results: what has been inspected, and how.

A run that is killed loses at most the pictures in hand, and the next one goes on after them. A power cut may also lose
the last rows that the system had not put on disk yet; those pictures are inspected again.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.closing import Closing
from stlm_edge.errors import OutputError, shown
from stlm_edge.files import cannot_write, make_folder, write_text
from stlm_edge.records import read_object

COLUMNS = ("path", "score", "threshold", "anomalous", "regions", "label", "seconds", "error")

TABLE, RECORD, OVERLAYS = "scores.csv", "run.json", "overlays"


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
    """

    engine_sha256: str
    threshold: float
    root: str
    area: str | None
    tile: str | None
    overlays: str


@dataclass(frozen=True)
class PictureRow:
    """One picture in the table.

    Attributes:
        path: below the run's root.
        score, anomalous, regions, seconds: None where it could not be read. `seconds` are those of the whole batch
            that it was in, from the picture to the verdict.
        label: None where it is not known.
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
            self.path,
            "" if self.score is None else f"{self.score:.9g}",
            f"{self.threshold!r}",
            "" if self.anomalous is None else str(self.anomalous),
            "" if self.regions is None else str(self.regions),
            self.label or "",
            "" if self.seconds is None else f"{self.seconds:.4f}",
            self.error or "",
        ]


class ScoreTable(Closing):
    """The table of a folder of results. Owns the file until `close`; each row is the system's as soon as it is added.

    Attributes:
        done: names of the pictures that earlier runs have inspected.
    """

    def __init__(self, folder: Path, settings: RunSettings, *, restart: bool) -> None:
        """Open the table, or begin it; a torn last line and pictures that could not be read are to be done again.

        Args:
            restart: remove the table and the overlays of an earlier run.
        Raises:
            OutputError: if the folder cannot be written to, or holds results of other settings or other programs.
        """
        self._path = folder / TABLE
        make_folder(folder)
        if restart:
            _remove(folder)
        rows = self._earlier(folder / RECORD, settings)
        _remove_torn_files(folder)
        self._rows = {row[0]: row for row in rows if not row[COLUMNS.index("error")]}
        self.done = frozenset(self._rows)
        write_text(folder / RECORD, json.dumps(dataclasses.asdict(settings), indent=2) + "\n")
        self._rewrite()
        try:
            self._file = self._path.open("a", encoding="utf-8", newline="")
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def add(self, row: PictureRow) -> None:
        """Append a row. Raises `OutputError`."""
        cells = row.cells()
        try:
            self._file.write(_text([cells]))
            self._file.flush()
        except OSError as error:
            raise cannot_write(self._path, error) from error
        self._rows[row.path] = cells

    def put_in_order(self, names: Iterable[str]) -> None:
        """Have the rows stand as one run without a stop would have written them. Raises `OutputError`."""
        ordered = {name: self._rows[name] for name in names if name in self._rows}
        # Pictures that are no longer there come first, as they were.
        ordered = {name: row for name, row in self._rows.items() if name not in ordered} | ordered
        if list(ordered) != list(self._rows):
            self._rows = ordered
            self._rewrite()

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def _rewrite(self) -> None:
        write_text(self._path, _text([COLUMNS, *self._rows.values()]))

    def _earlier(self, record: Path, settings: RunSettings) -> list[list[str]]:
        """The complete rows of an earlier run with the same settings; none without one."""
        elsewhere = "give another folder, or --restart to remove what is there"
        try:
            text = self._path.read_text(encoding="utf-8", errors="replace")
            found = read_object(record, error=OutputError, remedy=elsewhere)
        except FileNotFoundError as error:
            if self._path.exists():
                raise OutputError(
                    f"{self._path} has no {RECORD} beside it that says of which engine it is; {elsewhere}"
                ) from error
            return []
        except OSError as error:
            raise OutputError(f"{self._path} cannot be read ({error.strerror or error}); {elsewhere}") from error
        expected = dataclasses.asdict(settings)
        for name, value in expected.items():
            before = found.get(name)
            if before != value:
                said = before if isinstance(before, str) else shown(before)
                raise OutputError(
                    f"{self._path} is of an earlier run with {name} {said}, this one has {value}; {elsewhere}"
                )
        rows = _complete_rows(text)
        if rows is None:
            raise OutputError(f"{self._path} is not as it was written, expected {', '.join(COLUMNS)}; {elsewhere}")
        return rows


def _complete_rows(text: str) -> list[list[str]] | None:
    """The rows below the header without a torn last one; None if the text is no such table."""
    if not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
    # A power cut may leave zeros where the last lines were to be.
    rows = list(csv.reader(io.StringIO(text.partition("\0")[0], newline="")))
    if not rows:
        return []
    while len(rows) > 1 and len(rows[-1]) != len(COLUMNS):
        rows.pop()
    if rows[0] != list(COLUMNS) or any(len(row) != len(COLUMNS) for row in rows):
        return None
    return rows[1:]


def _text(rows: Iterable[Sequence[str]]) -> str:
    lines = io.StringIO(newline="")
    csv.writer(lines, lineterminator="\n").writerows(rows)
    return lines.getvalue()


def _remove_torn_files(folder: Path) -> None:
    """Remove what `stlm_edge.files.replacing` leaves behind where it is killed."""
    overlays = [*(folder / OVERLAYS).rglob(".*.jpg.????????.jpg"), *(folder / OVERLAYS).rglob(".*.tmp.jpg")]
    try:
        for path in [*folder.glob(f".{TABLE}.????????.csv"), *folder.glob(f".{RECORD}.????????.json"), *overlays]:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


def _remove(folder: Path) -> None:
    """Remove the results of an earlier run, and no overlays that it cannot have written."""
    try:
        if (folder / RECORD).exists() and (folder / OVERLAYS).exists():
            shutil.rmtree(folder / OVERLAYS)
        for name in (TABLE, RECORD):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
