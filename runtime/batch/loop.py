"""Pictures through a detector: decoded ahead and drawn behind on other threads, so that the network never waits."""

from __future__ import annotations

import errno
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from runtime.batch.table import PictureRow
from runtime.overlay import draw_overlay
from stlm_edge.errors import ImageError, OutputError
from stlm_edge.imaging import Image, read_image, write_image

if TYPE_CHECKING:
    from runtime.anomaly import Anomaly
    from runtime.batch.listing import Picture
    from runtime.batch.table import ScoreTable
    from runtime.detector import Detector, Pending
    from runtime.signals import StopSignals

logger = logging.getLogger(__name__)

Overlays = Literal["all", "anomalies", "none"]

_AHEAD = 2
"""Pictures that are decoded besides those of the next batch."""
_BEHIND = 8
"""Overlays that may wait to be written before the network has to."""
_NO_SUCH_NAMES = frozenset({errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ENOTDIR, errno.EEXIST, errno.EISDIR})
"""Of systems that refuse a name, which others of the same folder may have: too long, a byte or character that they do
not know, or that of another picture's folder."""


@dataclass
class Counts:
    """What has been done, and of it."""

    inspected: int = 0
    anomalous: int = 0
    unclear: int = 0
    unreadable: int = 0


@dataclass(frozen=True, eq=False)
class _Read:
    """A picture that was read, or why it could not be."""

    picture: Picture
    image: Image | None
    error: str | None = None


@dataclass(frozen=True, eq=False)
class _Batch:
    """Pictures in hand; `pending` has the anomalies of those that could be read, None if there are none."""

    pictures: Sequence[_Read]
    pending: Pending | None


class BatchRun:
    """One run over many pictures. Owns its threads until `run` ends, which is to be called once."""

    def __init__(
        self,
        detector: Detector,
        table: ScoreTable,
        *,
        overlays: Overlays,
        folder: Path,
        overlay_of: Mapping[str, str],
        on_done: Callable[[], object] = lambda: None,
    ) -> None:
        """
        Args:
            table: gets a row for each picture, in their order, once its overlay is written.
            overlays: which pictures get one.
            folder: where overlays lie.
            overlay_of: picture's name → its overlay's below `folder`, see `runtime.batch.listing.overlay_names`; one
                that the file system refuses costs its overlay and not its row.
            on_done: is told of each row.
        """
        self.counts = Counts()
        self._detector = detector
        self._table = table
        self._overlays = overlays
        self._folder = folder
        self._overlay_of = overlay_of
        self._on_done = on_done
        # It starts a thread when there is something for it to do.
        self._pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="pictures")
        self._behind: deque[tuple[PictureRow, Future[None] | None]] = deque()

    def run(self, pictures: Sequence[Picture], stop: StopSignals) -> None:
        """Inspect all of them, or those in hand when a stop is asked for.

        Raises:
            EngineError: if the engine fails.
            OutputError: if a row or an overlay cannot be written.
        """
        in_hand: deque[_Batch] = deque()
        try:
            for batch in self._batches(self._read_ahead(pictures)):
                if stop.requested:
                    break
                images = [read.image for read in batch if read.image is not None]
                try:
                    in_hand.append(_Batch(batch, self._detector.submit(images) if images else None))
                except ImageError:
                    # One of them does not fit the engine; which one, is seen when they come alone.
                    while in_hand:
                        self._finish(in_hand.popleft())
                    self._inspect_each(batch)
                if len(in_hand) == self._detector.in_hand:
                    self._finish(in_hand.popleft())
            while in_hand:
                self._finish(in_hand.popleft())
            self._write_rows(most=0)
        finally:
            self._pool.shutdown(cancel_futures=True)

    def _read_ahead(self, pictures: Sequence[Picture]) -> Iterator[_Read]:
        """The pictures in their order; a few more than a batch are being decoded."""
        rest = iter(pictures)
        waiting: deque[Future[_Read]] = deque()
        while True:
            while len(waiting) < self._detector.max_batch + _AHEAD and (picture := next(rest, None)) is not None:
                waiting.append(self._pool.submit(_read, picture))
            if not waiting:
                return
            yield waiting.popleft().result()

    def _batches(self, pictures: Iterator[_Read]) -> Iterator[list[_Read]]:
        """As many as the detector takes at once, and with them those that cannot be read."""
        batch: list[_Read] = []
        readable = 0
        for read in pictures:
            batch.append(read)
            readable += read.image is not None
            if readable == self._detector.max_batch:
                yield batch
                batch, readable = [], 0
        if batch:
            yield batch

    def _finish(self, batch: _Batch) -> None:
        try:
            anomalies = iter(batch.pending.result() if batch.pending is not None else ())
        except ImageError:
            self._inspect_each(batch.pictures)
            return
        for read in batch.pictures:
            if read.image is None:
                self._add_error(read.picture, read.error)
            else:
                self._add(read.picture, read.image, next(anomalies))

    def _inspect_each(self, batch: Sequence[_Read]) -> None:
        """Inspect pictures of which at least one does not fit the engine."""
        for read in batch:
            if read.image is None:
                self._add_error(read.picture, read.error)
                continue
            try:
                (anomaly,) = self._detector.submit([read.image]).result()
            except ImageError as error:
                self._add_error(read.picture, f"{read.picture.path}: {error}")
                continue
            self._add(read.picture, read.image, anomaly)

    def _add(self, picture: Picture, image: Image, anomaly: Anomaly) -> None:
        self.counts.inspected += 1
        self.counts.anomalous += anomaly.is_anomalous
        self.counts.unclear += anomaly.is_unclear
        row = PictureRow(
            picture.name,
            anomaly.score,
            self._detector.threshold.value,
            anomaly.is_anomalous,
            len(anomaly.regions),
            picture.label,
            anomaly.latency.total_ms / 1e3,
        )
        is_found = anomaly.is_anomalous or anomaly.is_unclear
        is_drawn = self._overlays == "all" or (self._overlays == "anomalies" and is_found)
        drawing = self._pool.submit(self._draw, picture, image, anomaly) if is_drawn else None
        self._behind.append((row, drawing))
        self._write_rows(most=_BEHIND)

    def _add_error(self, picture: Picture, error: str | None) -> None:
        self.counts.unreadable += 1
        logger.warning("not inspected: %s", error)
        row = PictureRow(picture.name, None, self._detector.threshold.value, None, None, picture.label, None, error)
        self._behind.append((row, None))
        self._write_rows(most=_BEHIND)

    def _draw(self, picture: Picture, image: Image, anomaly: Anomaly) -> None:
        path = self._folder / self._overlay_of[picture.name]
        drawn = draw_overlay(image, anomaly, threshold=self._detector.threshold.value, fps=None)
        try:
            write_image(path, drawn)
        except OutputError as error:
            cause = error.__cause__
            if not (isinstance(cause, OSError) and cause.errno in _NO_SUCH_NAMES and self._folder.is_dir()):
                raise
            logger.warning("no overlay of %s: its name cannot be used there (%s)", picture.name, cause.strerror)

    def _write_rows(self, *, most: int) -> None:
        """Write the rows whose overlays are there; wait for the others until `most` are left."""
        while self._behind:
            row, drawing = self._behind[0]
            if drawing is not None:
                if len(self._behind) <= most and not drawing.done():
                    return
                drawing.result()
            self._behind.popleft()
            self._table.add(row)
            self._on_done()


def _read(picture: Picture) -> _Read:
    """Decode a picture."""
    try:
        return _Read(picture, read_image(picture.path))
    except ImageError as error:
        return _Read(picture, None, str(error))
