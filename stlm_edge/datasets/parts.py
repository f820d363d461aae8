"""Which pictures show the same part. Those say little more than one of them, so splits and intervals go by part."""

from __future__ import annotations

import csv
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from stlm_edge.datasets.listing import read_text
from stlm_edge.datasets.near_duplicates import MOST_PICTURES, Look, near_duplicates
from stlm_edge.datasets.table import TableError, table_rows
from stlm_edge.errors import DataError, SpecError, counted, shown
from stlm_edge.patterns import found_in
from stlm_edge.records import MAY_LACK, build

logger = logging.getLogger(__name__)

COLUMNS = {"picture": ("file", "image", "path"), "part": ("tile", "group")}
"""Of a file of groups, and what else they may be called."""

_WHOLE = re.compile(r"^([0-9]+)[.,]0+$")
"""A part's number as a spreadsheet may write it in one line and not in the next."""

_REMEDY = f"expected a CSV file with the columns {' and '.join(COLUMNS)} and a line for each picture; correct it"


@dataclass(frozen=True)
class _Written:
    """Parts in a record."""

    numbers: str
    how: str
    learnt: str = field(default="", metadata=MAY_LACK)


@dataclass(frozen=True)
class Parts:
    """The part of each picture.

    Attributes:
        numbers: of the parts, from 0 in the order in which they first appear.
        how: they were found, for people.
        learnt: numbers of the pictures that the weights which a training began with have learnt from, so that they are
            not held out from it.
    """

    numbers: tuple[int, ...]
    how: str
    learnt: tuple[int, ...] = ()

    @classmethod
    def of(cls, names: Iterable[Hashable], *, how: str) -> Parts:
        """Args: names: of the part of each picture."""
        known: dict[Hashable, int] = {}
        return cls(tuple(known.setdefault(name, len(known)) for name in names), how)

    @classmethod
    def one_by_one(cls, count: int, *, how: str) -> Parts:
        """Each picture a part of its own."""
        return cls(tuple(range(count)), f"one by one, {how}")

    @classmethod
    def from_record(cls, record: object) -> Parts:
        """What `to_record` gave. Raises `SpecError`."""
        written = build(_Written, record)
        for text in (written.numbers, written.learnt or "0"):
            if re.fullmatch(r"[0-9]{1,9}( [0-9]{1,9})*", text) is None:
                raise SpecError(f"the parts are {shown(text)}, expected whole numbers; train again")
        numbers, learnt = (tuple(map(int, text.split())) for text in (written.numbers, written.learnt))
        return cls(numbers, written.how, learnt)

    def to_record(self) -> dict[str, str]:
        """For JSON, in one line however many pictures there are."""
        learnt = {"learnt": " ".join(map(str, self.learnt))} if self.learnt else {}
        return {"numbers": " ".join(map(str, self.numbers)), "how": self.how, **learnt}

    @property
    def count(self) -> int:
        return len(set(self.numbers))

    def of_pictures(self, indices: Iterable[int]) -> list[int]:
        """The numbers of some pictures' parts."""
        return [self.numbers[index] for index in indices]

    def __str__(self) -> str:
        return f"{counted(len(self.numbers), 'picture')} of {counted(self.count, 'part')} ({self.how})"


def find_parts(
    pictures: Sequence[Path], looks: Sequence[Look], *, groups: Path | None, group_by: str, folders: Sequence[Path]
) -> Parts:
    """By whichever way somebody said, else by what looks nearly the same.

    Args:
        looks: of each picture.
        groups: see `read_groups`, with `folders`.
        group_by: see `by_pattern`; empty for none.
    Raises:
        ConfigError, DataError: as those do.
    """
    found = parts_as_said(pictures, groups=groups, group_by=group_by, folders=folders) or _by_looks(looks)
    if found.count == 1 < len(pictures):
        logger.warning(
            "ONE PART: all %d good pictures show it (%s), so each counts as a part of its own, and the threshold may "
            "be too low for other parts; add pictures of others",
            len(pictures),
            found.how,
        )
        return Parts.one_by_one(len(pictures), how="since all show one part")
    return found


def _by_looks(looks: Sequence[Look]) -> Parts:
    if len(looks) > MOST_PICTURES:
        return Parts.one_by_one(
            len(looks), how=f"for nobody said which show the same part, and more than {MOST_PICTURES} are not compared"
        )
    found = Parts.of(near_duplicates(looks), how="")
    pictures_of = Counter(found.numbers)
    alike = sum(count for count in pictures_of.values() if count > 1)
    how = f"{alike} look nearly the same as others" if alike else "none looks nearly the same as another"
    return Parts(found.numbers, f"nobody said which show the same one; {how}")


def parts_as_said(
    pictures: Sequence[Path], *, groups: Path | None, group_by: str, folders: Sequence[Path]
) -> Parts | None:
    """The same, None where nobody said."""
    if groups is not None:
        return read_groups(groups, pictures, folders=folders)
    return by_pattern(group_by, pictures) if group_by else None


def by_pattern(pattern: str, pictures: Sequence[Path]) -> Parts:
    """By what a regular expression finds in the names of the files, without folder and suffix. Raises as `found_in`."""
    found = found_in(pattern, [picture.stem for picture in pictures])
    return Parts.of(found, how=f"by their names, --group-by {pattern}")


def read_groups(path: Path, pictures: Sequence[Path], *, folders: Sequence[Path]) -> Parts:
    """By a CSV file with the columns `picture` (or `file`) and `part` (or `tile`).

    A line names its picture by its path or the end of it, such as the name alone. It may name pictures that are not
    asked about, such as those of the test, if they are there.

    Args:
        folders: that paths in it may start from, besides its own.
    Raises:
        DataError: if it cannot be read, names a picture that is not there or in two ways, or lacks one of `pictures`.
    """
    part_of: dict[tuple[str, ...], str] = {}
    try:
        for number, fields in table_rows(read_text(path), COLUMNS):
            if not any(fields.values()):
                continue
            names, part = _names(fields["picture"], folder=path.parent), _WHOLE.sub(r"\1", fields["part"])
            if not names or not part:
                raise TableError(f", line {number}: found {shown(fields)}")
            if part_of.setdefault(names, part) != part:
                raise TableError(f", line {number}: found {fields['picture']} in a second part")
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}), {_REMEDY}") from None
    except TableError as error:
        raise DataError(f"{path}{error}, {_REMEDY}") from None
    ends: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    lengths = {len(names) for names in part_of}
    for picture in pictures:
        parts = Path(os.path.normpath(picture.absolute())).parts
        for length in lengths:
            ends[parts[-length:]].append(picture)
    missing = [
        "/".join(names)
        for names in part_of
        if names not in ends and not any(folder.joinpath(*names).is_file() for folder in (path.parent, *folders))
    ]
    if missing:
        raise DataError(
            f"{path} names {counted(len(missing), 'picture')} that {'is' if len(missing) == 1 else 'are'} not there, "
            f"the first is {missing[0]}; give the file of these pictures, write of another machine's paths the end, "
            "such as good/NAME, or remove such lines"
        )
    found: dict[Path, str] = {}
    for names, part in part_of.items():
        named = ends.get(names, [])
        if len(named) > 1 or (named and found.setdefault(named[0], part) != part):
            both = f"{named[0]} and {named[1]}" if len(named) > 1 else f"{named[0]} in two parts"
            raise DataError(f"{path} names {both} by {'/'.join(names)}, expected one picture and one part; give paths")
    unnamed = [picture for picture in pictures if picture not in found]
    if unnamed:
        raise DataError(
            f"{path} lacks {len(unnamed)} of {counted(len(pictures), 'picture')}, the first is {unnamed[0]}; {_REMEDY}"
        )
    return Parts.of((found[picture] for picture in pictures), how=f"by {path}")


def _names(text: str, *, folder: Path) -> tuple[str, ...]:
    """The folders and the name of a path, as Linux or Windows writes it; one with `..` in it starts from `folder`."""
    written = PurePosixPath(PureWindowsPath(text).as_posix() if "\\" in text else text)
    if ".." in written.parts:
        written = PurePosixPath(os.path.normpath(folder.absolute() / written))
    return tuple(name for name in written.parts if name not in ("/", "."))
