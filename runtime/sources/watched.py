"""A drop folder: pictures that are there, and then those that come, without end."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.event import Event
from runtime.sources.base import Frame, FrameSource
from runtime.sources.drop_files import Hashes, SeenFiles, is_file, is_watched, new_file, stamp_of, status_of
from runtime.sources.live import READ_TIMEOUT_S
from stlm_edge.errors import ImageError, SourceError, SourceTimeout
from stlm_edge.folders import SUFFIXES, is_litter, no_file, suffix_of
from stlm_edge.imaging import read_with_file

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.05
_SETTLED_S = 0.2
"""A file that has kept its size and time for so long is read. One whose writer pauses longer does not decode, or is
left alone until it changes again."""
_GIVEN_UP_S = 10.0
"""A file that has not changed for so long and still cannot be decoded is skipped."""
_OUTAGE_LOOK_S = 0.5
_REST, _REST_IF_CHANGED = 10, 2
"""After listing the folder so many times as long passes before the next time; the latter where the folder's own time of
change tells that names have come or gone, which not every share does."""
_SLOW_S = 1.0
_MOST_WAITING = 10_000
"""Files that are looked at between two listings; with more the oldest come first and the others are listed again."""
_AT_ONCE = 4096
_MOST_ASKED = 20_000
"""Files that were read already and are asked after one listing whether they have changed; after the next, others."""
_ASKS_S, _REST_AFTER_ASKING = 0.005, 5
_MOST_SUFFIXES = 10
_MOST_LINES = 5
"""Of entries that are no files, in one listing; further ones are counted."""


@dataclass
class _Waiting:
    """A new file, until it is whole."""

    size: int
    changed_ns: int
    since_s: float
    is_damaged: bool = False
    inode: int = 0


class WatchedFolder(FrameSource):
    """The pictures of a folder, without its subfolders, oldest first; then each new one. It never ends.

    Nothing is dropped: each file waits until it is read. A picture is known by its name, size and time of change, so
    one that is overwritten is a new part, and so is one that was removed and comes again. Hidden files and those not
    named like a picture are left alone, so write under such a name and rename, or write in place: a file is read when
    it has not changed for 0.2 s and is whole. One that never is gets logged by name, counted in `skipped` and passed
    over. An entry that is no file, or that nobody can look at, is said once and costs nothing else.

    What is remembered of the past are 16 bytes for each picture that still lies in the folder. Of very many pictures
    not all are asked at each listing whether they were overwritten, but each in its turn.

    A folder that cannot be read any more, because it was deleted or its share is gone, is an outage with the events
    `camera-lost` and `camera-back`.
    """

    def __init__(self, path: Path, *, only_new: bool = False, timeout_s: float = READ_TIMEOUT_S) -> None:
        """
        Args:
            only_new: leave alone what is there already, as for a line that starts again.
            timeout_s: how long `read` waits for a picture.
        Raises:
            SourceError: if it is no folder or cannot be read.
        """
        self._path = path
        self._timeout_s = timeout_s
        self._is_woken = False
        self._index = 0
        self._seen = SeenFiles.none()
        self._asked: deque[str] = deque()
        self._asked_up_to = 0
        self._listed_ns = -1
        self._said: frozenset[str] = frozenset()
        self._other_suffixes: set[str] = set()
        self._waiting: dict[str, _Waiting] = {}
        self._next_listing_s = self._next_listing_if_changed_s = self._next_look_s = self._next_ask_s = 0.0
        self._lost_s: float | None = None
        self._events: deque[Event] = deque(maxlen=1000)  # of a caller who never asks
        self._is_listed = self._is_slow = False
        self._is_mount = path.is_mount()
        try:
            if only_new:
                self._seen = self._what_is_there()
            self._list()
        except OSError as error:
            raise SourceError(
                f"{path} cannot be watched ({error.strerror or error}), expected a folder that may be read; check the "
                "path and its permissions"
            ) from None

    def read(self) -> Frame | None:
        until_s = time.monotonic() + self._timeout_s
        while (frame := self.poll()) is None:
            if time.monotonic() >= until_s or self._is_woken:
                self._is_woken = False
                raise SourceTimeout(
                    f"no new picture in {self._path} for {self._timeout_s:g} s; check what writes there"
                )
            time.sleep(_LOOK_EVERY_S)
        return frame

    def wake(self) -> None:
        self._is_woken = True

    def poll(self) -> Frame | None:
        now_s = time.monotonic()
        if len(self._waiting) <= _MOST_WAITING // 2 and self._is_time_to_list(now_s):
            self._list_or_lose()
        if self._asked and now_s >= self._next_ask_s:
            self._ask_again()
        if now_s < self._next_look_s:
            return None
        for name in list(self._waiting):
            frame = self._read_if_whole(name)
            if frame is not None:
                return frame
        # All were looked at, and none was whole.
        self._next_look_s = time.monotonic() + _LOOK_EVERY_S
        return None

    def take_events(self) -> list[Event]:
        events = list(self._events)
        self._events.clear()
        return events

    def _read_if_whole(self, name: str) -> Frame | None:
        """The picture if it has settled and decodes; otherwise it goes on waiting, or is given up."""
        path, now_s = self._path / name, time.monotonic()
        if not self._is_unchanged(name, now_s=now_s) or now_s < self._waiting[name].since_s + _SETTLED_S:
            return None
        waiting = self._waiting[name]
        is_last_try = now_s >= waiting.since_s + _GIVEN_UP_S
        if waiting.is_damaged and not is_last_try:
            return None
        try:
            image, file = read_with_file(path)
        except ImageError as error:
            waiting.is_damaged = True
            if is_last_try:
                self._skip(name, str(error))
            return None
        del self._waiting[name]
        with suppress(OSError):  # of a file that was moved away as soon as it could be read
            found = path.stat()
            if (found.st_size, found.st_mtime_ns) != (waiting.size, waiting.changed_ns):
                self._wait_for(name, found, since_s=now_s)
                if found.st_ino == waiting.inode:  # written over while it was read, perhaps half of it
                    return None
        capture_ms = 1e3 * (time.monotonic() - now_s)
        frame = Frame(image, self._index, now_s, str(path), capture_ms=capture_ms, file=file)
        self._index += 1
        return frame

    def _is_unchanged(self, name: str, *, now_s: float) -> bool:
        """Whether a file is as it was when it was looked at last."""
        waiting = self._waiting[name]
        try:
            found = (self._path / name).stat()
        except OSError:
            # Gone, or the whole folder is. If it is there again when the folder is listed, it is a new one.
            del self._waiting[name]
            self._seen = self._seen.without(name)
            return False
        if (found.st_size, found.st_mtime_ns) == (waiting.size, waiting.changed_ns):
            waiting.inode = found.st_ino
            return True
        self._wait_for(name, found, since_s=now_s)
        return False

    def _wait_for(self, name: str, found: os.stat_result, *, since_s: float) -> None:
        """Have a file that has changed settle."""
        self._waiting[name] = _Waiting(found.st_size, found.st_mtime_ns, since_s)
        self._seen.stamp(name, found)

    def _skip(self, name: str, reason: str) -> None:
        del self._waiting[name]
        self._index += 1
        self.skipped += 1
        logger.warning("skipped: %s", reason)

    def _list_or_lose(self) -> None:
        try:
            self._list()
        except OSError as error:
            if self._lost_s is None:
                self._lost_s = time.monotonic()
                text = (
                    f"{self._path} cannot be read any more ({error.strerror or error}); trying again until it is back"
                )
                self._events.append(Event("camera-lost", text, self._lost_s))
            self._next_listing_s = time.monotonic() + _OUTAGE_LOOK_S
            return
        if self._lost_s is not None:
            now_s = time.monotonic()
            self._events.append(Event("camera-back", f"{self._path} is back after {now_s - self._lost_s:.1f} s", now_s))
            self._lost_s = None
            self.reconnects += 1

    def _what_is_there(self) -> SeenFiles:
        with os.scandir(self._path) as entries:
            named = (entry for entry in entries if is_watched(entry.name))
            found = {}
            for entry in named:
                with suppress(OSError):  # which is told of when the folder is listed
                    if (status := status_of(entry)) is not None:
                        found[hash(entry.name)] = stamp_of(status)
        return SeenFiles.of(found)

    def _list(self) -> None:
        """Find new pictures. Raises `OSError`."""
        started_s = time.monotonic()
        self._listed_ns = self._path.stat().st_mtime_ns
        if self._is_mount and not self._path.is_mount():
            raise OSError("it is not mounted")
        hashes: list[Hashes] = []
        refused: dict[str, str] = {}
        oldest = heapq.nsmallest(_MOST_WAITING - len(self._waiting), self._new_files(hashes, refused))
        for changed_ns, name, size in oldest:
            self._waiting[name] = _Waiting(size, changed_ns, started_s)
        present = np.sort(np.concatenate(hashes)) if hashes else np.empty(0, np.int64)
        admitted = {hash(name): hash((size, changed_ns)) for changed_ns, name, size in oldest}
        self._seen = self._seen.among(present).updated(admitted)
        self._say(refused)
        self._rest(time.monotonic() - started_s, count=len(present))

    def _new_files(self, hashes: list[Hashes], refused: dict[str, str]) -> Iterator[tuple[int, str, int]]:
        """Time of change in ns, name and size of the pictures that were not seen before.

        Args:
            hashes: gets those of all names.
            refused: gets the name of each entry that is no file, and why.
        """
        index, first, is_round = 0, self._asked_up_to, not self._asked
        with os.scandir(self._path) as entries:
            pictures = (entry for entry in entries if is_watched(entry.name) or self._is_told(entry))
            while some := list(itertools.islice(pictures, _AT_ONCE)):
                of_some = np.fromiter((hash(entry.name) for entry in some), np.int64, len(some))
                hashes.append(of_some)
                for entry, stamp in zip(some, self._seen.stamps_of(of_some), strict=True):
                    index += 1
                    if stamp is None:
                        yield from new_file(entry, refused)
                    elif is_round and first < index <= first + _MOST_ASKED:
                        self._asked.append(entry.name)
        if is_round:
            self._asked_up_to = first + _MOST_ASKED if first + _MOST_ASKED < index else 0

    def _ask_again(self) -> None:
        """Have some of the files that were read before wait again if they were overwritten."""
        started_s = time.monotonic()
        while self._asked and time.monotonic() < started_s + _ASKS_S:
            name = self._asked.popleft()
            if name in self._waiting:
                continue
            with suppress(OSError):  # which is told of where a file is new
                found = (self._path / name).stat()
                if no_file(found.st_mode) is None and self._seen.stamp_before(name) not in (None, stamp_of(found)):
                    self._wait_for(name, found, since_s=started_s)
        self._next_ask_s = time.monotonic() + _REST_AFTER_ASKING * (time.monotonic() - started_s)

    def _is_time_to_list(self, now_s: float) -> bool:
        if now_s >= self._next_listing_s:
            return True
        if now_s < self._next_listing_if_changed_s or self._lost_s is not None:
            return False
        try:
            return self._path.stat().st_mtime_ns != self._listed_ns
        except OSError:
            return True

    def _is_told(self, entry: os.DirEntry[str]) -> bool:
        """Say once of each suffix that such files are no pictures; always False."""
        if is_litter(entry.name) or entry.name[0] == "~" or len(self._other_suffixes) >= _MOST_SUFFIXES:
            return False
        suffix = suffix_of(entry.name)
        if suffix not in self._other_suffixes and is_file(entry):
            self._other_suffixes.add(suffix)
            logger.warning("%s: files like %s are passed over; pictures are %s", self._path, entry.name, SUFFIXES)
        return False

    def _say(self, refused: dict[str, str]) -> None:
        """Name the entries that are left alone, each once while it lies there."""
        fresh = [name for name in refused if name not in self._said]
        for name in fresh[:_MOST_LINES]:
            logger.warning("%s %s; it is left alone", self._path / name, refused[name])
        if len(fresh) > _MOST_LINES:
            logger.warning("%s has %d more entries of that kind", self._path, len(fresh) - _MOST_LINES)
        self._said = frozenset(refused)

    def _rest(self, took_s: float, *, count: int) -> None:
        pause_s = max(_LOOK_EVERY_S, _REST_IF_CHANGED * took_s)
        self._next_listing_if_changed_s = time.monotonic() + pause_s
        self._next_listing_s = time.monotonic() + max(_LOOK_EVERY_S, _REST * took_s)
        # The first listing says nothing yet, since it asks for the time of every file.
        if pause_s > _SLOW_S and self._is_listed and not self._is_slow:
            self._is_slow = True
            logger.warning(
                "%s holds %d pictures, and new ones are noticed every %.1f s only; move inspected ones away",
                self._path,
                count,
                pause_s,
            )
        self._is_listed = True
