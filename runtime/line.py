"""The loop of a camera line: take frames, inspect them, vote, and hand the verdicts to the outputs.

Two frames are in hand at a time. While the network works on one, the next is taken and prepared; from a live source it
is taken as late as possible, so that it is the newest and not one that has been waiting.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from runtime.anomaly import Latency
from runtime.event import FREQUENT, GOOD_NEWS, Event
from runtime.inspection import Fault, FrameLatency, Inspection
from runtime.line_control import Control
from runtime.overlay import draw_overlay, drawn_once
from runtime.timing import FrameRate, Seldom
from stlm_edge.errors import ImageError, SourceError, SourceTimeout

if TYPE_CHECKING:
    from runtime.anomaly import Anomaly
    from runtime.detector import Pending
    from runtime.faults import FaultDetector
    from runtime.judge import Judge
    from runtime.part import Part
    from runtime.shadow import Shadow
    from runtime.signals import StopRequest
    from runtime.sinks import Outputs
    from runtime.sources import Frame, FrameSource
    from runtime.summary import RunRecorder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _InHand:
    """Frames of one batch. Those with a fault are not inspected, and where all have one nothing is pending."""

    frames: Sequence[Frame]
    judge: Judge
    faults: Sequence[Fault | None]
    pending: Pending | None


class Line:
    """One run from a source to the outputs. Owns none of what it is given."""

    def __init__(
        self,
        source: FrameSource,
        control: Control,
        *,
        outputs: Outputs,
        recorder: RunRecorder,
        faults: FaultDetector | None = None,
        shadow: Shadow | None = None,
        name: str | None = None,
    ) -> None:
        """
        Args:
            control: by which others ask it for things; it has who judges, and the parts, where there are any.
            faults: looks at each frame of a live source before it is inspected.
            shadow: compares a candidate with the judge; is closed by whoever made it.
            name: tells its events from those of other lines in the log.
        """
        self._source = source
        self._control = control
        self._outputs = outputs
        self._recorder = recorder
        self._faults = faults if source.is_live else None
        self._shadow = shadow
        self._prefix = "" if name is None else f"camera {name}: "
        self._parts = self._control.parts
        self._held: Frame | None = None
        """Was taken, and is judged by another one than the frames in hand."""
        self._seldom = {kind: Seldom() for kind in FREQUENT}
        self._fault: Fault | None = None
        self._rate = FrameRate()
        self._pace = _Pace()
        self._in_hand: deque[_InHand] = deque()

    def run(self, stop: StopRequest, *, limit: int | None = None) -> None:
        """Inspect until the source ends, a stop is asked for or `limit` frames are taken; finish what is in hand.

        A live source that delivers nothing is waited for without end.

        Raises `SourceError`, `EngineError`, `ImageError`.
        """
        self._control.start(self._pass_on)
        if self._shadow is not None:
            self._shadow.start(self._pass_on)
        if self._parts is not None:
            self._parts.start(publish=self._publish_part, tell=self._pass_on)
        taken, is_over = 0, False
        while not is_over or self._in_hand:
            if not is_over and len(self._in_hand) < self._room:
                try:
                    frames, is_over = self._take(stop, left=None if limit is None else limit - taken)
                except (SourceError, ImageError):
                    while self._in_hand:  # these came before and have their verdicts
                        self._finish(self._in_hand.popleft())
                    raise
                taken += len(frames)
                is_over = is_over or taken == limit
                if frames and len(self._in_hand) < self._room:
                    continue
            if self._in_hand:
                self._finish(self._in_hand.popleft())
            self._control.retire([batch.judge for batch in self._in_hand])
            is_over = is_over or stop.requested or self._outputs.wants_stop

    @property
    def _room(self) -> int:
        """How many batches may be in hand."""
        judge = self._in_hand[-1].judge if self._in_hand else self._control.judge
        return judge.detector.in_hand

    @property
    def _wants_newest(self) -> bool:
        return self._source.is_live and self._source.queue is None

    def _take(self, stop: StopRequest, *, left: int | None) -> tuple[list[Frame], bool]:
        """Submit frames that are there, waiting for one only if there is nothing else to do.

        Args:
            left: take no more than that.
        Returns:
            Those that were submitted, and whether it was the end.
        """
        if self._in_hand:
            judge = self._in_hand[-1].judge
            if self._wants_newest:
                self._pace.wait()
            frames = []
        else:
            try:
                first = self._held or self._wait(stop)
            except SourceTimeout:
                return [], False
            if first is None:
                return [], True
            self._held, judge, frames = None, self._control.judge_of(first), [first]
        # Of a live source without a queue only the newest is wanted.
        most = 1 if self._wants_newest else judge.detector.max_batch
        most = most if left is None else min(most, left)
        while len(frames) < most and (frame := self._next_of(judge)) is not None:
            frames.append(frame)
        self._pass_on_events()
        if frames:
            self._submit(frames, judge)
        return frames, False

    def _wait(self, stop: StopRequest) -> Frame | None:
        """The next frame, as soon as it is there; None at the end."""
        try:
            with nullcontext() if self._parts is None else self._parts.quiet():
                return self._counted(stop.read(self._source))
        finally:
            self._control.progressed()
            self._pass_on_events()

    def _next_of(self, judge: Judge) -> Frame | None:
        """The next frame, if it is there and `judge` is to judge it."""
        self._held = self._held or self._counted(self._source.poll())
        if self._held is None or self._control.judge_of(self._held) is not judge:
            return None
        frame, self._held = self._held, None
        return frame

    def _counted(self, frame: Frame | None) -> Frame | None:
        """What was read, counted to its part."""
        if self._parts is not None:
            self._parts.taken(frame)
        return frame

    def _submit(self, frames: Sequence[Frame], judge: Judge) -> None:
        faults = [self._fault_of(frame) for frame in frames]
        images = [frame.image for frame, fault in zip(frames, faults, strict=True) if fault is None]
        self._in_hand.append(_InHand(frames, judge, faults, judge.detector.submit(images) if images else None))
        if images:
            self._pace.started()

    def _fault_of(self, frame: Frame) -> Fault | None:
        return frame.fault if frame.fault is not None or self._faults is None else self._faults.check(frame)

    def _finish(self, batch: _InHand) -> None:
        found: list[Anomaly] = []
        if batch.pending is not None:
            found = batch.pending.result()
            self._pace.ended(found[0].latency)
        decided_s = time.monotonic()
        anomalies = iter(found)
        for frame, fault in zip(batch.frames, batch.faults, strict=True):
            anomaly = next(anomalies) if fault is None else None
            self._publish(frame, anomaly, judge=batch.judge, fault=fault, decided_s=decided_s)
        self._control.progressed()

    def _publish(
        self, frame: Frame, anomaly: Anomaly | None, *, judge: Judge, fault: Fault | None, decided_s: float
    ) -> None:
        self._tell_fault(fault)
        vote = judge.vote
        if self._parts is not None:
            vote.begin(self._parts.part_of(frame))
        if anomaly is not None:
            vote.add(anomaly.score)
            if judge.drift is not None and not anomaly.is_anomalous:
                self._pass_on(judge.drift.add(anomaly.score))
        threshold = judge.detector.threshold.value
        alarm, fps = vote.alarm, self._rate.tick(decided_s)
        draw = partial(draw_overlay, frame.image, anomaly, threshold=threshold, fps=fps, fault=fault, alarm=alarm)
        inspection = Inspection(
            frame=frame,
            anomaly=anomaly,
            fault=fault,
            alarm=alarm,
            part=vote.part,
            threshold=threshold,
            latency=_latency(frame, anomaly, decided_s=decided_s),
            picture=drawn_once(draw, on_drawn=partial(self._recorder.add_stage, "draw")),
            engine_sha256=judge.engine_sha256,
            recipe=judge.recipe,
        )
        self._recorder.add(inspection)
        self._outputs.write(inspection)
        if self._parts is not None:
            self._parts.judged(inspection)
        if self._shadow is not None and anomaly is not None:
            self._shadow.offer(inspection, recipe=judge.recipe)

    def _publish_part(self, part: Part) -> None:
        self._recorder.add_part(part)
        self._outputs.write_part(part)

    def _tell_fault(self, fault: Fault | None) -> None:
        if fault in (self._fault, "incomplete"):  # which says nothing of the next one; the source tells of it
            return
        now_s = time.monotonic()
        if fault is not None:
            text = f"the camera's pictures are {fault} and are not inspected; check lens, light and cable"
            self._pass_on(Event("camera-fault", text, now_s))
        else:
            self._pass_on(Event("camera-fault-over", f"the camera's pictures are no longer {self._fault}", now_s))
        self._fault = fault

    def _pass_on_events(self) -> None:
        for event in self._source.take_events():
            self._pass_on(event)

    def _pass_on(self, event: Event | None) -> None:
        if event is not None:
            if event.kind not in self._seldom or self._seldom[event.kind].is_due():
                logger.log(
                    logging.INFO if event.kind in GOOD_NEWS else logging.WARNING, "%s%s", self._prefix, event.text
                )
            self._recorder.add_event(event)
            self._outputs.write_event(event)


class _Pace:
    """Knows by the last frames when the network will be done, and so when the next frame should be taken."""

    _FRAMES = 30
    _EARLY_S = 0.0005
    """Waiting ends this much before it need be, since sleeping takes a little longer than asked for."""

    def __init__(self) -> None:
        self._inferred_s: deque[float] = deque([0.0], maxlen=self._FRAMES)
        self._prepared_s: deque[float] = deque([0.0], maxlen=self._FRAMES)
        self._done_s = 0.0

    def started(self) -> None:
        """The network was given a batch. What it takes at least is what is expected."""
        self._done_s = max(time.monotonic(), self._done_s) + min(self._inferred_s)

    def ended(self, latency: Latency) -> None:
        """An answer has come."""
        self._inferred_s.append((latency.upload_ms + latency.infer_ms + latency.download_ms) / 1e3)
        self._prepared_s.append(latency.prepare_ms / 1e3)

    def wait(self) -> None:
        """Sleep until the next frame must be prepared to be ready when the network is."""
        left_s = self._done_s - max(self._prepared_s) - self._EARLY_S - time.monotonic()
        if left_s > 0:
            time.sleep(left_s)


def _latency(frame: Frame, anomaly: Anomaly | None, *, decided_s: float) -> FrameLatency:
    total_ms = 1e3 * (decided_s - frame.timestamp_s)
    stages = anomaly.latency if anomaly is not None else Latency(0, 0, 0, 0, 0)
    return FrameLatency(
        capture_ms=frame.capture_ms,
        wait_ms=max(0.0, total_ms - frame.capture_ms - stages.total_ms),
        prepare_ms=stages.prepare_ms,
        upload_ms=stages.upload_ms,
        infer_ms=stages.infer_ms,
        download_ms=stages.download_ms,
        decide_ms=stages.decide_ms,
        total_ms=total_ms,
    )
