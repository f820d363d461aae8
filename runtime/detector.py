"""From a frame to a verdict."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.anomaly import Anomaly, Latency
from runtime.backends import BackendChoice, open_engine
from runtime.closing import Closing
from runtime.stitching import Canvas, infer_tiles
from runtime.tiling import Tiling, check_tile
from runtime.verification import warn_unless_verified
from runtime.watchdog import OPENING, Watchdog
from stlm_edge.errors import StlmError
from stlm_edge.imaging import Image, as_frame, to_input
from stlm_edge.scoring import is_anomalous
from stlm_edge.sidecar import Sidecar
from stlm_edge.spec import ModelSpec, Size, Threshold

if TYPE_CHECKING:
    from runtime.area import Area, ScaledArea
    from runtime.backends.base import Backend, BatchAnswer

__all__ = ["Anomaly", "Detector", "Latency", "Pending"]

logger = logging.getLogger(__name__)


class EngineOpener(Protocol):
    """What opens an engine for a detector, which closes it."""

    def __call__(self, path: Path, *, backend: BackendChoice) -> tuple[Backend, Sidecar]: ...


class Pending:
    """Frames that were submitted; `result` waits for their verdicts."""

    def __init__(self, finish: Callable[[], list[Anomaly]]) -> None:
        self._finish = finish

    def result(self) -> list[Anomaly]:
        """The anomalies in the order of the frames; to be called once. Raises `EngineError`, of tiles `ImageError`."""
        return self._finish()


class Detector(Closing):
    """An engine with its threshold. Owns the backend until `close`; use as a context manager.

    Any thread may call it; calls of `inspect` wait for one another. The anomalies that it gives belong to the caller,
    outlive it and may go to any thread.

    Attributes:
        sidecar: of the engine.
        threshold: that is in force.
        area: what is inspected of each frame; None for all of it.
        tile: (height, width) of the tiles that larger frames are cut into; None for none.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        sidecar: Sidecar,
        threshold: Threshold,
        area: Area | None = None,
        tile: Size | None = None,
    ) -> None:
        sidecar.spec.require_reachable(threshold.value)
        if threshold.unclear is not None and threshold.method == "manual":
            sidecar.spec.require_reachable(threshold.unclear, remedy="give another --unclear")
        self._backend = backend
        self._lock = threading.RLock()
        self.sidecar = sidecar
        self.threshold = threshold
        self.area = area
        self.tile = tile
        self._tiling: Tiling | None = None
        self._canvas: Canvas | None = None
        self._scaled_area: ScaledArea | None = None
        if area is not None and self._tiling_of(area.size) is None:
            self._scaled_area = area.scaled(self.spec.input_size)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        backend: BackendChoice = "auto",
        threshold: float | Threshold | None = None,
        area: Area | None = None,
        tile: Size | None = None,
        watchdog: Watchdog | None = None,
        side_by_side: bool = False,
        opener: EngineOpener | None = None,
    ) -> Detector:
        """Open an engine by the sidecar beside it; one that is not verified is warned of.

        Args:
            path: a .plan, an .onnx file, or an .xml of OpenVINO.
            threshold: takes the place of the one in the sidecar, and is logged; a `Threshold` may have a second one,
                for what is unclear.
            area: what is inspected; see `runtime.area.read_area`. The map counts as 0 outside of it, and the score is
                that of the pixels inside.
            tile: (height, width) in frame pixels. Frames that are larger are inspected in overlapping tiles of that
                size; the score is that of the stitched map, at the scale at which the network sees the tiles.
            watchdog: notices if opening, an inference or closing does not end; the caller closes it.
            side_by_side: see `runtime.backends.open_engine`; for those who `submit` frames without end. Tiles are.
            opener: opens the engine in the place of `runtime.backends.open_engine`, and has its inferences watched.
        Raises:
            EngineError, SpecError: see `runtime.backends.open_engine`.
            SpecError: also if no score can reach `threshold`, or every one does.
            ConfigError: if nothing is left of `area` on the network's scale, or `tile` is too small for the engine.
        """
        by_hand = threshold
        if isinstance(by_hand, float | int):
            by_hand = Threshold(value=by_hand, method="manual", images=0)
        opening = nullcontext() if watchdog is None else watchdog.watching(f"opening {path}", pictures=OPENING)
        with opening:
            chosen_opener = opener or partial(open_engine, side_by_side=side_by_side or tile is not None)
            opened, sidecar = chosen_opener(Path(path), backend=backend)
        if opener is None:
            opened.watchdog = watchdog
        try:
            warn_unless_verified(Path(path), sidecar)
            chosen = sidecar.spec.require_threshold()
            if tile is not None:
                check_tile(tile, sidecar.spec)
            detector = cls(opened, sidecar=sidecar, threshold=by_hand or chosen, area=area, tile=tile)
        except StlmError:
            opened.close()
            raise
        if by_hand is not None:
            logger.info(
                "threshold %g%s given by hand instead of %g, which the sidecar has%s",
                by_hand.value,
                "" if by_hand.unclear is None else f", and {by_hand.unclear:g} for unclear pictures,",
                chosen.value,
                "" if chosen.unclear is None else f"; its {chosen.unclear:g} for unclear pictures is not used",
            )
        detector._say_what_is_inspected()
        return detector

    @property
    def spec(self) -> ModelSpec:
        """The model's specification, as its sidecar has it."""
        return self.sidecar.spec

    @property
    def path(self) -> Path:
        """Of the engine's file."""
        return self._backend.path

    @property
    def runs_by(self) -> str:
        """The name of the backend."""
        return self._backend.runs_by

    @property
    def device(self) -> str:
        """Where the network runs, in words."""
        return self._backend.device

    @property
    def max_batch(self) -> int:
        """How many frames `submit` takes at once; in tiles one, since they fill the batches."""
        return self.spec.max_batch if self.tile is None else 1

    @property
    def in_hand(self) -> int:
        """How many calls of `submit` may be in hand with a gain; in tiles one, which keeps the network busy alone."""
        return self._backend.in_hand if self.tile is None else 1

    def inspect(self, image: NDArray[np.uint8 | np.uint16]) -> Anomaly:
        """Score one picture.

        Args:
            image: (H, W, 3), BGR, or (H, W), grey, of any size; uint8, or uint16 with the value in its upper bits.
        Returns:
            The anomaly; the caller owns its map.
        Raises:
            ImageError: if `image` is no such picture, or not of the size that the area was drawn on.
            EngineError: if the engine fails or is closed.
        """
        with self._lock:
            return self.submit([image]).result()[0]

    def submit(self, images: Sequence[NDArray[np.uint8 | np.uint16]]) -> Pending:
        """Start with some pictures and return while the network is running; see `inspect`.

        Two calls may be in hand at a time: what the second one prepares costs no time while the first one's network
        runs. Results are asked for in the order of the calls. With tiles, all the work is done when the result is asked
        for.

        Args:
            images: 1 to `max_batch` of them; not to be written to before their result is there.
        """
        frames = [as_frame(image) for image in images]
        for frame in frames:
            if self.area is not None:
                self.area.require_size(_size(frame))
        if self.tile is not None:
            return Pending(lambda: self._inspect_tiles(frames))
        return self._submit(frames)

    def close(self) -> None:
        """Release the backend; harmless when called twice."""
        self._backend.close()

    def _submit(self, images: Sequence[Image]) -> Pending:
        start_s = time.perf_counter()
        batch = _joined([to_input(image, spec=self.spec) for image in images])
        prepare_ms = 1e3 * (time.perf_counter() - start_s)
        ticket = self._backend.submit(batch)
        sizes = [_size(image) for image in images]
        return Pending(lambda: self._decide(ticket.result(), sizes=sizes, prepare_ms=prepare_ms))

    def _say_what_is_inspected(self) -> None:
        if self.area is not None:
            logger.info(
                "%s leaves %.0f %% of the frame to be inspected; the threshold %g is for whole pictures, which score "
                "no lower, so set a lower --threshold if the scores of good parts stay far below it",
                self.area.source,
                100 * self.area.share,
                self.threshold.value,
            )
        if self.tile is not None:
            logger.info(
                "larger frames are inspected in tiles of %d x %d; the threshold %g is for one picture, so good frames "
                "reach it up to as many times as often as they have tiles: set a higher --threshold if they do",
                *self.tile,
                self.threshold.value,
            )

    def _decide(self, answer: BatchAnswer, *, sizes: Sequence[Size], prepare_ms: float) -> list[Anomaly]:
        anomalies = []
        for index, size in enumerate(sizes):
            start_s = time.perf_counter()
            network_map = answer.maps[index]
            score = float(answer.scores[index])
            if self._scaled_area is not None:
                score = self._scaled_area.score(network_map, top_k=self.spec.top_k)
            verdict = is_anomalous(score, self.threshold)
            latency = Latency(
                prepare_ms=prepare_ms,
                upload_ms=answer.upload_ms,
                infer_ms=answer.infer_ms,
                download_ms=answer.download_ms,
                decide_ms=1e3 * (time.perf_counter() - start_s),
            )
            anomaly = Anomaly(
                score,
                verdict,
                network_map,
                size,
                latency,
                self.threshold.value,
                self.area,
                unclear_from=self.threshold.unclear,
            )
            anomalies.append(anomaly)
        return anomalies

    def _inspect_tiles(self, images: Sequence[Image]) -> list[Anomaly]:
        with self._lock:  # there is one canvas
            return [self._inspect_tiled(image) for image in images]

    def _inspect_tiled(self, image: Image) -> Anomaly:
        size = _size(image)
        tiling = self._tiling_of(size)
        if tiling is None:
            return self._submit([image]).result()[0]
        if self._canvas is None or self._canvas.tiling is not tiling:
            self._canvas = Canvas(tiling)
        answer = infer_tiles(self._backend, image, canvas=self._canvas, spec=self.spec)
        latency = Latency(answer.prepare_ms, 0.0, answer.infer_ms, 0.0, answer.stitch_ms)
        verdict = is_anomalous(answer.score, self.threshold)
        return Anomaly(
            answer.score,
            verdict,
            answer.maps,
            size,
            latency,
            self.threshold.value,
            self.area,
            tiling,
            self.threshold.unclear,
        )

    def _tiling_of(self, size: Size) -> Tiling | None:
        """The tiles of a frame; None if it is not larger than one."""
        if self.tile is None or (size[0] <= self.tile[0] and size[1] <= self.tile[1]):
            return None
        if self._tiling is None or self._tiling.frame_size != size:
            self._tiling = Tiling(size, tile=self.tile, input_size=self.spec.input_size, area=self.area)
            logger.info(
                "frames of %d x %d are inspected in %d tiles of %d x %d", *size, len(self._tiling.boxes), *self.tile
            )
        return self._tiling


def _size(image: Image) -> Size:
    return image.shape[0], image.shape[1]


def _joined(inputs: Sequence[Image]) -> Image:
    return inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
