"""A review: which picture goes to which reviewer, and what comes of what they decide."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from runtime.closing import Closing
from runtime.review.dataset import DataSet, goes_to_test, mask_name
from runtime.review.decisions import Call, Decision, DecisionLog, conflict_with, now, reviewer_named
from runtime.review.kept import pictures_to_review
from runtime.review.masks import drawn_mask, labelme_file, mask_file
from runtime.review.queue import Queue
from runtime.review.shown import Shown, read_bytes, show
from stlm_edge.errors import ControlError, DataError, OutputError
from stlm_edge.files import folder_for, locked
from stlm_edge.folders import is_folder
from stlm_edge.names import escaped, unescaped

logger = logging.getLogger(__name__)

_LOOKED_AGAIN_S = 5.0
"""How often the folder is listed while a line goes on keeping pictures there."""
_MOST_SHOWN = 24
"""Pictures that are held ready."""


@dataclass(frozen=True)
class Item:
    """A picture as a reviewer gets it. Attributes: number: by which the page names it."""

    number: int
    name: str
    shown: Shown
    decision: Decision | None


@dataclass(frozen=True)
class Entry:
    """A picture in a list. Attributes: number: None where it lies in the folder no more; decision: None if open."""

    number: int | None
    name: str
    decision: Decision | None


class Review(Closing):
    """The pictures of a folder on their way into a data set. Any thread may call it.

    It holds the locks of both folders until it is closed: one program reviews a folder, with as many reviewers as open
    its page. Each has pictures of their own before them, and no decision takes the place of another that the reviewer
    has not seen.

    Attributes:
        root: of the data set's category.
        folder_name: of the folder with the pictures, escaped.
    """

    def __init__(self, folder: Path, root: Path, *, test_share: float, labelme: bool) -> None:
        """
        Args:
            folder: with the pictures.
            root: of the data set's category; made if need be.
            test_share: of good pictures, that go to `test/good`.
            labelme: write LabelMe's file of each mask too.
        Raises:
            DataError: if the folder cannot be read, the data set is none in MVTec AD's layout, or its log is damaged.
            OutputError: if the data set cannot be written, or one of both is under review already.
        """
        if not is_folder(folder):
            raise DataError(f"{folder} is no folder, expected one with pictures to review; check the path")
        if root.resolve().is_relative_to(folder.resolve()):
            raise DataError(f"{root} lies in the folder to review, which is only read; give another one to --into")
        self.root, self._folder = root, folder
        self.folder_name = escaped(str(folder.resolve()))
        self._data_set = DataSet(root)
        self._test_share, self._labelme = test_share, labelme
        self._pictures: list[Path] = []
        self._numbers: dict[str, int] = {}
        self._sha256: dict[int, str] = {}
        self._gone: set[int] = set()
        self._queue = Queue()
        self._shown: OrderedDict[int, Shown] = OrderedDict()
        self._listed_s = 0.0
        self._lock = threading.RLock()
        is_new = not root.exists()
        with ExitStack() as stack:
            stack.enter_context(folder_for(root))
            stack.enter_context(_under_review(folder))
            if is_new:
                stack.callback(_remove_empty, root)
            stack.enter_context(_under_review(root))
            self._log = stack.enter_context(DecisionLog(root))
            self._data_set.recover(self._log.decisions.values(), taken_back=self._log.taken_back)
            self._list()
            self._held = stack.pop_all()

    def close(self) -> None:
        with self._lock:
            self._held.close()

    # --- what is to be decided

    def take(self, session: str, count: int) -> list[Item]:
        """Up to so many pictures that nobody has decided or has before them; they are this session's from now on.

        One that is a copy of a decided one, or that is gone, is passed over.
        """
        items: list[Item] = []
        while len(items) < count:
            with self._lock:
                number = self._queue.next(session)
                if number is None and time.monotonic() - self._listed_s > _LOOKED_AGAIN_S:
                    self._list()
                    number = self._queue.next(session)
            if number is None:
                break
            try:
                item = self.item(number)
            except DataError:
                self._is_gone(number)
                continue
            if item.decision is None:
                items.append(item)
            else:
                with self._lock:
                    self._queue.remove(number)
        return items

    def touch(self, session: str) -> None:
        """Note that somebody is at a session's page."""
        with self._lock:
            self._queue.touch(session)

    def release(self, session: str) -> None:
        """Give back what a session has before it, as when its page is closed."""
        with self._lock:
            self._queue.release(session)

    def item(self, number: int) -> Item:
        """Raises `DataError` if there is no such picture, or it is gone."""
        shown = self.shown(number)
        with self._lock:
            self._sha256[number] = shown.sha256
            return Item(number, self._name(number), shown, self._log.holding.get(shown.sha256))

    def shown(self, number: int) -> Shown:
        """Raises as `item` does."""
        path = self.path(number)
        with self._lock:
            if (known := self._shown.get(number)) is not None:
                self._shown.move_to_end(number)
                return known
        shown = show(path)
        with self._lock:
            self._shown[number] = shown
            while len(self._shown) > _MOST_SHOWN:
                self._shown.popitem(last=False)
        return shown

    def path(self, number: int) -> Path:
        """Raises `DataError`."""
        with self._lock:
            if not 0 <= number < len(self._pictures):
                raise DataError(f"found no picture with the number {number}; load the page again")
            return self._pictures[number]

    # --- deciding

    def decide(
        self,
        number: int,
        call: Call,
        *,
        reviewer: str,
        sha256: str,
        kind: str = "",
        mask: bytes = b"",
        replaces: int | None = None,
    ) -> Decision:
        """Put a picture where it belongs, and have it in the log.

        Args:
            sha256: of the picture that the reviewer saw.
            kind: of the defect.
            mask: PNG that the reviewer has drawn, white where the defect is; empty for none.
            replaces: number of the decision about this picture that the reviewer saw; None for none.
        Raises:
            ConflictError: if there is another decision about it.
            DataError: if the picture is gone, changed or damaged, or the mask is not of its size.
            ConfigError: if no folder can be called like the kind, or nobody like the reviewer.
            OutputError: if the disk is full, and the like; then nothing was decided.
        """
        path, who = self.path(number), reviewer_named(reviewer)
        try:
            data = read_bytes(path)
        except DataError:
            self._is_gone(number)
            raise
        if sha256 != self._checked(number, data):
            raise DataError(
                f"{path} was changed while it was shown, and nothing was decided of it; it is asked for again"
            )
        shown = self.shown(number)
        with self._lock:
            former = self._log.holding.get(sha256)
            if (former.seq if former else None) != replaces:
                raise conflict_with(former)
            files = self._files(path, data, shown, call, kind, mask)
            said = shown.said
            decision = Decision(
                seq=self._log.next_seq,
                time=now(),
                reviewer=who,
                call=call,
                folder=self.folder_name,
                picture=self._name(number),
                sha256=sha256,
                kind=files[0][0].split("/")[1] if call == "defect" else None,
                files=tuple(name for name, _ in files),
                replaces=replaces,
                score=said.score,
                threshold=said.threshold,
                unclear_from=said.unclear_from,
                verdict=said.verdict,
                engine_sha256=said.engine_sha256,
            )
            self._write(decision, files, former)
            self._queue.remove(number)
        return decision

    def undo(self, session: str, *, reviewer: str) -> tuple[Decision, int | None]:
        """Take a reviewer's last decision back, whatever run it is of; the picture is open again and the session's.

        Returns:
            The decision, and the picture's number; None if it lies in the folder no more.
        Raises:
            ControlError: if the reviewer has decided nothing.
            OutputError: if that cannot be written; then the decision still holds.
        """
        who = reviewer_named(reviewer)
        with self._lock:
            last = next((each for each in reversed(self._log.holding.values()) if each.reviewer == who), None)
            if last is None:
                raise ControlError(f"{who} has decided nothing that could be taken back")
            self._data_set.make_room_for(last)
            self._log.append(Decision(self._log.next_seq, now(), who, "undo", of=last.seq))
            self._data_set.take_back(last)
            number = self._numbers.get(last.picture) if last.folder == self.folder_name else None
            if number is not None:
                self._queue.give(number, session)
            return last, number

    # --- what there is to say of it

    @property
    def decisions(self) -> list[Decision]:
        """Those that hold, oldest first."""
        with self._lock:
            return list(self._log.holding.values())

    def kinds(self) -> list[str]:
        """Kinds of defects, the last one first."""
        with self._lock:
            used = [each.kind for each in reversed(self._log.holding.values()) if each.kind is not None]
            return [unescaped(kind) for kind in dict.fromkeys([*used, *map(escaped, self._data_set.kinds())])]

    def entries(self) -> Iterator[Entry]:
        """All pictures: first those that are decided, the last one first, then the others."""
        with self._lock:
            decisions, left = self.decisions, set(range(len(self._pictures))) - self._gone
        for decision in reversed(decisions):
            number = self._numbers.get(decision.picture) if decision.folder == self.folder_name else None
            left.discard(-1 if number is None else number)
            yield Entry(number, decision.picture, decision)
        for number in sorted(left):
            if self._sha256.get(number) not in self._log.holding:
                yield Entry(number, self._name(number), None)

    def counts(self) -> dict[str, int]:
        """By what was decided (`good`, `defect`, `skip`), `open`, `in_hand` of these, and `disagree`."""
        with self._lock:
            found = {"good": 0, "defect": 0, "skip": 0, "disagree": 0}
            for each in self._log.holding.values():
                found[each.call] += 1
                found["disagree"] += each.disagrees
            return {**found, "open": self._queue.open, "in_hand": self._queue.held}

    # --- inside, with the lock

    def _files(
        self, path: Path, data: bytes, shown: Shown, call: Call, kind: str, mask: bytes
    ) -> list[tuple[str, bytes]]:
        """What is to be written, the picture first."""
        if call == "skip":
            return []
        if shown.size is None:
            raise DataError(f"{shown.fault}; skip it, since nothing could learn from it")
        if call == "good":
            split = "test" if goes_to_test(shown.sha256, self._test_share) else "train"
            return [(self._data_set.new_name(f"{split}/good", path, sha256=shown.sha256), data)]
        folder = f"test/{self._data_set.kind_named(kind)}"
        name = self._data_set.new_name(folder, path, sha256=shown.sha256)
        marked = drawn_mask(mask, size=shown.size) if mask else None
        if marked is None or not marked.any():
            return [(name, data)]
        files = [(name, data), (mask_name(name), mask_file(marked))]
        if self._labelme:
            label = name.split("/")[1]
            drawing = labelme_file(marked, label=label, picture=f"../../{unescaped(name)}")
            files.append((f"labelme/{label}/{escaped(Path(unescaped(name)).stem)}.json", drawing))
        return files

    def _write(self, decision: Decision, files: list[tuple[str, bytes]], former: Decision | None) -> None:
        self._data_set.stage(decision.seq, files)
        try:
            if former is not None:
                self._data_set.make_room_for(former)
            self._log.append(decision)
        except BaseException:
            self._data_set.unstage(self._data_set.staged(decision.seq, files))
            raise
        if former is not None:
            self._data_set.take_back(former)
        self._data_set.finish(decision)

    def _is_gone(self, number: int) -> None:
        with self._lock:
            self._queue.remove(number)
            self._gone.add(number)

    def _checked(self, number: int, data: bytes) -> str:
        """SHA-256 of a picture's bytes; of another content than was shown it waits again."""
        digest = hashlib.sha256(data).hexdigest()
        with self._lock:
            if self._sha256.get(number, digest) != digest:
                self._shown.pop(number, None)
                self._queue.again(number)
        return digest

    def _list(self) -> None:
        """Add what is new in the folder."""
        self._listed_s = time.monotonic()
        decided = {each.picture: each.sha256 for each in self.decisions if each.folder == self.folder_name}
        for path in pictures_to_review(self._folder, leave_out=self.root):
            name = escaped(str(path.relative_to(self._folder)))
            if name in self._numbers:
                continue
            number = self._numbers[name] = len(self._pictures)
            self._pictures.append(path)
            if name in decided:
                self._sha256[number] = decided[name]
            else:
                self._queue.add(number)

    def _name(self, number: int) -> str:
        return escaped(str(self._pictures[number].relative_to(self._folder)))


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # where something was decided it is not empty
        folder.rmdir()


def _under_review(folder: Path) -> ExitStack:
    stack = ExitStack()
    try:
        stack.enter_context(locked(folder))
    except OutputError:
        raise OutputError(
            f"{folder} is under review by another program, expected one for each folder; open its page, which several "
            "reviewers can use at once, or end it"
        ) from None
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror or error}); check its rights") from None
    return stack
