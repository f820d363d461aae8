"""Which frames show one part, when it is over, and its one result. Times are passed in, and nothing here waits.

The rules are written for people in docs/runtime.md, under "Parts".
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from dataclasses import dataclass, field

from runtime.control import Trigger
from runtime.inspection import Inspection
from runtime.part import Part, PartVerdict
from runtime.voting import PartVote, VotingRule
from stlm_edge.errors import ConfigError, counted

GRACE_S = 0.02
"""A frame that was captured within the gap has been handed over by then: it takes a moment from the driver to here."""
FRAME_WITHIN_S = 1.0
"""A camera that was triggered has delivered by then; what comes later is no answer to that trigger."""


@dataclass(frozen=True)
class PartRule:
    """When a part begins, and what ends it.

    Attributes:
        trigger: what the frames come by; None for a camera that runs free, of which the newest frame wins.
        frames: that a part has; None where something else ends it. Of triggered ones without a gap, 1.
        gap_s: a longer time without a frame ends a part.
        deadline_s: from its trigger, or its first frame, to its result at the latest.
    Raises:
        ConfigError: if one of them cannot work.
    """

    trigger: Trigger | None = None
    frames: int | None = None
    gap_s: float | None = None
    deadline_s: float | None = None

    def __post_init__(self) -> None:
        if self.frames is not None and self.frames < 1:
            raise ConfigError(f"a part has {self.frames} frames, expected a whole number from 1 on")
        for what, time_s in (("the gap between two parts", self.gap_s), ("the deadline of a part", self.deadline_s)):
            if time_s is not None and not (math.isfinite(time_s) and time_s > 0):
                raise ConfigError(f"{what} is {time_s:g} s, expected a time above 0")

    @property
    def has_parts(self) -> bool:
        """Whether anything tells one part from the next; otherwise there are frames alone."""
        return any(value is not None for value in dataclasses.astuple(self))

    @property
    def wanted(self) -> int | None:
        """Frames that a part must have; None where nobody knows how many will come."""
        is_one_each = self.frames is None and self.trigger is not None and self.gap_s is None
        return 1 if is_one_each else self.frames

    @property
    def is_window(self) -> bool:
        """The deadline alone ends a part, so that each is a time of a stream of frames."""
        return self.trigger is None and self.frames is None and self.gap_s is None

    def require_votes(self, votes: VotingRule) -> None:
        """Raises `ConfigError` if no part could ever have enough votes to be rejected."""
        if self.wanted is not None and votes.needed > self.wanted:
            raise ConfigError(
                f"a part has {counted(self.wanted, 'frame')}, so {votes.needed} of {votes.frames} can never vote "
                "against it and none would be rejected; give fewer votes or more frames a part"
            )


@dataclass(frozen=True, eq=False)
class Judging:
    """By what a part is judged, from its first frame to its last.

    Attributes:
        votes: how many of a part's last frames make it unclear. Whether they reject it, each inspection says.
        recipe, engine_sha256: as its result has them.
    """

    rule: PartRule
    votes: VotingRule
    recipe: str | None = None
    engine_sha256: str | None = None


@dataclass(eq=False)
class _Open:
    """A part that has no result yet, or whose last frames may still come.

    Attributes:
        by: what it is judged by, whatever comes after it.
        came: frames of it, those included that could not be kept or show nothing.
        asked: how often the camera was triggered for it.
        pending: index of a frame that waits for its verdict → when it was captured.
        is_over: no other frame belongs to it.
    """

    number: int
    part_id: str | None
    begun_s: float
    by: Judging
    came: int = 0
    last_s: float | None = None
    asked: int = 0
    asked_s: float = -math.inf
    pending: dict[int, float] = field(default_factory=dict)
    is_over: bool = False
    is_rejected: bool = False
    is_faulty: bool = False
    is_missed: bool = False
    is_unclear: bool = False
    unclear_vote: PartVote | None = None
    judged: int = 0
    worst: Inspection | None = None
    result: Part | None = None

    @property
    def deadline_s(self) -> float:
        """When it has its result at the latest."""
        return math.inf if self.by.rule.deadline_s is None else self.begun_s + self.by.rule.deadline_s

    @property
    def verdict(self) -> PartVerdict:
        """By what is known of it now; of fewer frames than may reject it, none can say that it is good."""
        if self.is_rejected:
            return "reject"
        if self.is_faulty:
            return "fault"
        if self.is_missed or self.judged < self.by.votes.needed:
            return "missed"
        return "unclear" if self.is_unclear else "good"


class Parts:
    """Counts parts from 0 in the order in which they begin, and gives exactly one result for each, in that order.

    Times are on the clock of `time.monotonic`, and `now_s` never goes back. Each method first ends what the clock has
    ended, so that a verdict after the deadline is late however late the caller's timer is.
    """

    def __init__(self, by: Judging) -> None:
        self._by = by
        self._undecided: deque[_Open] = deque()
        self._collecting: _Open | None = None
        """Takes the frames that come; it may have its result already."""
        self._part_of: dict[int, _Open] = {}
        self._results: list[Part] = []
        self._begun = 0

    def change(self, by: Judging) -> None:
        """Judge each part that begins from now on by something else, whose trigger is the same."""
        self._by = by

    def in_use(self) -> set[Judging]:
        """What parts are judged by that begin, have no result yet, or of which a frame has no verdict."""
        open_parts = [*self._undecided, *self._part_of.values(), *filter(None, [self._collecting])]
        return {self._by, *(part.by for part in open_parts)}

    def judging_of(self, index: int) -> Judging:
        """What a frame that has come is judged by, always the same."""
        return self._part_of[index].by

    @property
    def is_waiting(self) -> bool:
        """A part has not got all its frames."""
        return self._collecting is not None

    @property
    def wants_frame(self) -> bool:
        """The camera is to be triggered now, for the part that began or for its next frame."""
        part = self._collecting
        return (
            part is not None
            and part.by.rule.trigger == "software"
            and part.asked == part.came
            and part.asked < (part.by.rule.wanted or 1)
        )

    def begin(self, part_id: str | None, *, now_s: float, has_room: bool = True) -> tuple[int, bool]:
        """Begin a part since somebody outside says so.

        Args:
            has_room: for a frame of it.
        Returns:
            Its number, and whether it will be judged. If not, it is missed: there is no room, or the camera has not
            delivered what it was last triggered for.
        """
        self.tick(now_s)
        before = self._collecting
        part = self._begin(part_id, now_s)
        if not has_room or (before is not None and before.by.rule.trigger == "software"):
            part.is_missed = True
            self._end(part, now_s)
            return part.number, False
        if before is not None:
            # A frame that comes now may be of either, unless there is no telling how many the one before has.
            part.is_missed = before.by.rule.wanted is not None or not before.came
            self._end(before, now_s)
        self._collecting = part
        return part.number, True

    def asked(self, *, now_s: float) -> None:
        """The camera is triggered now, as `wants_frame` asked for."""
        part = self._collecting
        assert part is not None
        part.asked += 1
        part.asked_s = now_s

    def arrived(self, index: int, *, timestamp_s: float, now_s: float) -> int | None:
        """A frame has come, to be judged.

        Args:
            index: of the frame, unlike any other.
            timestamp_s: when it was captured.
        Returns:
            The number of its part; None for a frame that nobody has triggered, and that shows no part.
        """
        part = self._receive(timestamp_s, now_s)
        if part is None:
            return None
        part.pending[index] = timestamp_s
        self._part_of[index] = part
        if part.came == part.by.rule.wanted:
            self._end(part, now_s)
        return part.number

    def spoiled(self, *, timestamp_s: float, now_s: float, is_fault: bool) -> int | None:
        """A frame has come that cannot be judged; otherwise like `arrived`.

        Args:
            is_fault: it is damaged; else there was no room for it.
        """
        part = self._receive(timestamp_s, now_s)
        if part is None:
            return None
        part.is_faulty |= is_fault
        part.is_missed |= not is_fault
        if part.came == part.by.rule.wanted:
            self._end(part, now_s)
        return part.number

    def interrupted(self, *, now_s: float) -> None:
        """The camera is lost, or cannot be triggered: what it owes will not come."""
        self.tick(now_s)
        part = self._collecting
        if part is not None and (part.by.rule.wanted is not None or not part.came):
            part.is_faulty = True
            self._end(part, now_s)

    def part_of(self, index: int, *, now_s: float) -> int:
        """The number of the part of a frame that has come and is about to get its verdict."""
        self.tick(now_s)
        return self._part_of[index].number

    def judged(self, inspection: Inspection, *, now_s: float) -> bool:
        """A frame has its verdict. Returns False if its part has its result already, which stays as it is."""
        self.tick(now_s)
        part = self._part_of.pop(inspection.frame.index)
        part.pending.pop(inspection.frame.index, None)
        if part.result is not None:
            return False
        part.is_rejected |= inspection.alarm
        part.is_faulty |= inspection.fault is not None
        if inspection.anomaly is not None:
            part.judged += 1
            self._compare(part, inspection)
        self._decide_if_done(part, now_s)
        return True

    def tick(self, now_s: float, *, quiet_since_s: float | None = None) -> None:
        """End what the clock has ended.

        Args:
            quiet_since_s: since when it is known that no frame is waiting to be told of by `arrived`; None while that
                is not known. A gap is none before.
        """
        for part in list(self._undecided):
            if part.result is None and now_s >= part.deadline_s:
                self._time_out(part, now_s)
        if self._collecting is not None and now_s >= self._over_s(self._collecting, quiet_since_s):
            self._end(self._collecting, now_s)

    def due_s(self, *, quiet_since_s: float | None = None) -> float:
        """When `tick` is to be called next; infinity if nothing ends by the clock."""
        over_s = math.inf if self._collecting is None else self._over_s(self._collecting, quiet_since_s)
        return min(over_s, *(part.deadline_s for part in self._undecided if part.result is None), math.inf)

    def finish(self, *, now_s: float) -> None:
        """No frame comes any more, and no verdict: every part gets its result."""
        self.tick(now_s)
        for part in list(self._undecided):
            part.is_missed |= bool(part.pending)
            part.pending.clear()
            self._end(part, now_s)

    def take_results(self) -> list[Part]:
        """The results since this was asked last, in the order of the parts."""
        while self._undecided and (result := self._undecided[0].result) is not None:
            self._results.append(result)
            self._undecided.popleft()
        results, self._results = self._results, []
        return results

    def _begin(self, part_id: str | None, begun_s: float) -> _Open:
        part = _Open(self._begun, part_id, begun_s, self._by)
        self._begun += 1
        self._undecided.append(part)
        return part

    def _receive(self, timestamp_s: float, now_s: float) -> _Open | None:
        self.tick(now_s)
        part = self._collecting
        gap_s = None if part is None else part.by.rule.gap_s
        if part is not None and gap_s is not None and part.last_s is not None and timestamp_s - part.last_s > gap_s:
            self._end(part, now_s)
            part = self._collecting
        if part is None:
            if self._by.rule.trigger == "software":
                return None
            part = self._collecting = self._begin(None, timestamp_s)
        part.came += 1
        part.last_s = timestamp_s
        return part

    def _end(self, part: _Open, now_s: float) -> None:
        """No other frame is of this part."""
        part.is_over = True
        if self._collecting is part:
            self._collecting = None
        part.is_missed |= part.came < (part.by.rule.wanted or 1)
        self._decide_if_done(part, now_s)

    def _decide_if_done(self, part: _Open, now_s: float) -> None:
        if part.is_over and not part.pending and part.result is None:
            self._decide(part, now_s)

    def _decide(self, part: _Open, now_s: float) -> None:
        part.result = Part(
            number=part.number,
            part_id=part.part_id,
            verdict=part.verdict,
            frames=part.judged,
            worst=part.worst,
            recipe=part.by.recipe,
            begun_s=part.begun_s,
            decided_s=now_s,
            engine_sha256=part.by.engine_sha256,
        )
        part.worst = None

    def _time_out(self, part: _Open, now_s: float) -> None:
        rule = part.by.rule
        if rule.is_window:
            # What has no verdict yet is of the next one, so that nothing of the stream is of none; it is inspected, so
            # the next one is judged by the same.
            pending, part.pending = part.pending, {}
            self._end(part, now_s)
            if pending:
                self._collecting = following = self._begin(None, now_s)
                following.by = part.by
                following.pending, following.came, following.last_s = pending, len(pending), max(pending.values())
                self._part_of.update(dict.fromkeys(pending, following))
            return
        part.is_missed = True
        self._decide(part, now_s)
        # Its other frames are told from the next part's by their trigger or a gap; else by their time alone.
        if rule.trigger == "software":
            may_come = part.asked > (0 if rule.wanted is None else part.came)
        else:
            may_come = rule.gap_s is not None
        if not may_come:
            self._end(part, now_s)

    def _over_s(self, part: _Open, quiet_since_s: float | None) -> float:
        """When the part that collects is over if no frame comes."""
        over_s, rule = math.inf, part.by.rule
        if rule.gap_s is not None and part.last_s is not None and quiet_since_s is not None:
            over_s = max(part.last_s + rule.gap_s, quiet_since_s) + GRACE_S
        if rule.trigger == "software" and (rule.wanted is not None or not part.came):
            asked_s = max(part.begun_s, part.asked_s)
            over_s = min(over_s, max(asked_s + FRAME_WITHIN_S, part.begun_s + (rule.deadline_s or 0.0)))
        return over_s

    def _compare(self, part: _Open, inspection: Inspection) -> None:
        """See whether this is the part's worst frame, and whether it makes the part unclear."""
        anomaly = inspection.anomaly
        assert anomaly is not None
        worst = None if part.worst is None else part.worst.anomaly
        if worst is None or anomaly.score > worst.score:
            part.worst = inspection
        if anomaly.unclear_from is not None:
            if part.unclear_vote is None:
                rule = dataclasses.replace(part.by.votes, release=None)
                part.unclear_vote = PartVote(rule, threshold=anomaly.unclear_from)
            part.unclear_vote.add(anomaly.score)
            part.is_unclear |= part.unclear_vote.alarm
