"""Which pictures show the same part, from a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from stlm_edge.errors import DataError


def groups_of(paths: Sequence[Path], *, root: Path, tiles: Path | None) -> list[str]:
    """The part of each picture; without a file each picture is a part of its own.

    Args:
        paths: pictures below `root`.
        tiles: CSV with a head line that has the columns file (below `root`, with /) and tile.
    Raises:
        DataError: if the file cannot be read, lacks a column or a picture.
    """
    names = [path.relative_to(root).as_posix() for path in paths]
    if tiles is None:
        return names
    try:
        with tiles.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{tiles} cannot be read ({error}); give a CSV file with the columns file and tile") from None
    if not rows or not {"file", "tile"} <= set(rows[0]):
        found = ", ".join(map(str, rows[0])) if rows else "no line below a head line"
        raise DataError(f"{tiles} has {found}; expected the columns file and tile")
    tile_of = {row["file"]: row["tile"] for row in rows}
    missing = [name for name in names if not tile_of.get(name)]
    if missing:
        raise DataError(
            f"{tiles} has no tile for {len(missing)} of {len(names)} test pictures (first: {missing[0]}); add them"
        )
    return [tile_of[name] for name in names]
