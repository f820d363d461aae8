"""Where reviewed pictures go: a folder in MVTec AD's layout, in which nothing is ever written over or deleted.

A decision is made in this order: its files are written beside their places under hidden names; the log gets its line,
which is the moment from which the decision holds; the files get their names, and those of a decision that it replaces
move to `.undone/NUMBER/`. Whatever a kill or a power cut leaves undone of the last step, `recover` does.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from runtime.review.decisions import Decision
from stlm_edge.datasets.listing import folders
from stlm_edge.datasets.mvtec import is_mvtec
from stlm_edge.datasets.samples import GOOD
from stlm_edge.datasets.visa import is_visa
from stlm_edge.errors import ConfigError, DataError
from stlm_edge.files import cannot_write, sync
from stlm_edge.folders import entries, is_folder, is_litter, is_picture
from stlm_edge.names import LONGEST_NAME, beginning, escaped, unescaped

logger = logging.getLogger(__name__)

UNDONE = ".undone"
LABELME = "labelme"
_OURS = {"train", "test", "ground_truth", LABELME}
_TEMPORARY = ".review-"

_KIND = re.compile(r"[^\W_][\w .()+-]{0,59}")
_GOOD_WORDS = ("good", "ok", "normal")
"""That the layout would take for a kind of defect, or refuse."""

NewFiles = Sequence[tuple[str, bytes]]
"""Names below the data set's folder, escaped, with their contents."""


class DataSet:
    """The folder of one category.

    Attributes:
        root: with `train/good`, `test/<kind>` and `ground_truth/<kind>` below it, made when they are needed.
    """

    def __init__(self, root: Path) -> None:
        """Raises `DataError` if the folder holds something else than MVTec AD's layout."""
        self.root = root
        if not is_folder(root):
            return
        names = folders(root)
        is_ours = is_mvtec(root) or (set(names) <= _OURS and not any(map(is_picture, entries(root))))
        if not is_ours or is_visa(root.absolute().parent):
            raise DataError(
                f"{root} holds other things than train/, test/ and ground_truth/ (MVTec AD's layout), found "
                f"{', '.join(escaped(name) for name in names[:5]) or 'pictures'}; give a new folder, or that of a "
                "category in that layout"
            )

    def kinds(self) -> list[str]:
        """The kinds of defects that there are, by their folders' names."""
        test = self.root / "test"
        return [name for name in (folders(test) if is_folder(test) else []) if name.casefold() not in _GOOD_WORDS]

    def kind_named(self, word: str) -> str:
        """The name of the folder for what somebody calls a kind of defect: as it is written there already, if it is.

        Raises:
            ConfigError: if no folder can be called so.
        """
        kind = " ".join(unicodedata.normalize("NFC", word).split())
        known = self.kinds()
        if kind in known:
            return kind
        if not _KIND.fullmatch(kind) or kind.casefold() in _GOOD_WORDS or is_litter(kind) or kind[-1] in " .":
            raise ConfigError(
                f"found {kind[:80]!r} as the kind of a defect, expected a word of up to 60 letters, digits, blanks and "
                "_ . - + ( ), and not good; give another one"
            )
        return next((name for name in known if name.casefold() == kind.casefold()), kind)

    def new_name(self, folder: str, source: Path, *, sha256: str) -> str:
        """A name below the data set for a copy of a picture whose stem nothing in that folder has.

        Masks are found by the stem, and names may come twice from several folders.
        """
        suffix, place = source.suffix, self.root / folder
        ending = f"-{sha256[:8]}"
        # Room for what masks are called, and for another number.
        stem = beginning(source.stem, most=LONGEST_NAME - len(os.fsencode(suffix)) - len(ending) - 16)
        taken = {unicodedata.normalize("NFC", Path(name).stem).casefold() for name in _names(place)}
        names = (stem, f"{stem}{ending}", *(f"{stem}{ending}-{number}" for number in range(2, 1000)))
        free = next(name for name in names if unicodedata.normalize("NFC", name).casefold() not in taken)
        return f"{folder}/{escaped(free + suffix)}"

    def stage(self, seq: int, files: NewFiles) -> None:
        """Write a decision's files under hidden names. Raises `OutputError`; then nothing of them is there."""
        written: list[Path] = []
        path = self.root
        try:
            for number, (name, data) in enumerate(files):
                path = self.place(name)
                temporary = _temporary(path, seq, number)
                written.append(temporary)
                path.parent.mkdir(parents=True, exist_ok=True)
                with temporary.open("wb") as file:
                    file.write(data)
                    file.flush()
                    sync(file.fileno())
        except OSError as error:
            self.unstage(written)
            raise cannot_write(path, error) from error

    def staged(self, seq: int, files: NewFiles) -> list[Path]:
        """The hidden names of `stage`."""
        return [_temporary(self.place(name), seq, number) for number, (name, _) in enumerate(files)]

    def unstage(self, temporaries: Iterable[Path]) -> None:
        """Take away what `stage` wrote for a decision that does not hold."""
        for temporary in temporaries:
            try:
                temporary.unlink(missing_ok=True)
            except OSError as error:
                logger.warning("%s is left over (%s); remove it", temporary, error.strerror)
            with suppress(OSError):  # a kind of its own, of which there is nothing now; others are not empty
                temporary.parent.rmdir()

    def finish(self, decision: Decision) -> None:
        """Give a decision's files their names, unless they have them. Raises `OutputError`."""
        for number, name in enumerate(decision.files):
            path = self.place(name)
            temporary = _temporary(path, decision.seq, number)
            try:
                if temporary.exists() and not os.path.lexists(path):
                    temporary.rename(path)
            except OSError as error:
                raise cannot_write(path, error) from error

    def make_room_for(self, decision: Decision) -> None:
        """Make the folders that `take_back` will move files to. Raises `OutputError`."""
        for name in decision.files:
            folder = self._undone(decision, name).parent
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise cannot_write(folder, error) from error

    def take_back(self, decision: Decision, *, held: frozenset[str] = frozenset()) -> None:
        """Move a decision's files away, those that are still there.

        Args:
            held: names that belong to decisions which hold.
        Raises:
            OutputError: if one cannot be moved.
        """
        for name in decision.files:
            path, aside = self.place(name), self._undone(decision, name)
            try:
                if name not in held and path.exists() and not os.path.lexists(aside):
                    aside.parent.mkdir(parents=True, exist_ok=True)
                    path.rename(aside)
            except OSError as error:
                raise cannot_write(aside, error) from error

    def recover(self, decisions: Iterable[Decision], *, taken_back: set[int]) -> None:
        """Bring to an end what a killed program has begun, and say which files are missing. Raises `OutputError`."""
        made = [decision for decision in decisions if decision.files]
        held = frozenset(name for each in made if each.seq not in taken_back for name in each.files)
        for decision in made:
            self.finish(decision)
            if decision.seq in taken_back:
                self.take_back(decision, held=held)
        missing = [name for name in sorted(held) if not self.place(name).exists()]
        if missing:
            logger.warning(
                "%s lacks %d of the files that its log names, such as %s; who moved them may have had a reason, and "
                "their pictures stay decided",
                self.root,
                len(missing),
                missing[0],
            )
        for folder in self._folders():
            self.unstage(folder.glob(f"{_TEMPORARY}*"))

    def place(self, name: str) -> Path:
        """Where a file of a decision lies."""
        return self.root / unescaped(name)

    def _undone(self, decision: Decision, name: str) -> Path:
        return self.root / UNDONE / str(decision.seq) / unescaped(name)

    def _folders(self) -> Iterator[Path]:
        yield self.root / "train" / GOOD
        for split in ("test", "ground_truth", LABELME):
            if is_folder(place := self.root / split):
                yield from (place / name for name in folders(place))


def mask_name(picture: str) -> str:
    """`test/scratch/x.png` → `ground_truth/scratch/x_mask.png`."""
    _, kind, name = picture.split("/")
    return f"ground_truth/{kind}/{escaped(Path(unescaped(name)).stem)}_mask.png"


def goes_to_test(sha256: str, share: float) -> bool:
    """Whether a good picture is one of the share that is kept for the test: always the same for the same picture."""
    return int(hashlib.sha256(sha256.encode()).hexdigest()[:8], 16) < share * 16**8


def _temporary(path: Path, seq: int, number: int) -> Path:
    return path.with_name(f"{_TEMPORARY}{seq}-{number}{path.suffix[:16]}")


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []
