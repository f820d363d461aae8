"""What a PLC and a line agree on over each part, whatever carries it: trigger, acknowledgement, result."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from runtime.control import LineControl
from runtime.event import Event, Tell
from runtime.part import Part
from runtime.sources.live import READ_TIMEOUT_S
from stlm_edge.errors import ControlError, counted

logger = logging.getLogger(__name__)

_HANGS_AFTER_S = 2 * READ_TIMEOUT_S
"""A line without progress for so long is not ready, and its heartbeat stands still. It has some whenever it has waited
for a camera in vain."""
_BEATS_PER_S = 2
_TOLD_EVERY_S = 60.0

NO_ERROR, TRIGGER_REFUSED, RECIPE_REFUSED = 0, 1, 2


@dataclass(frozen=True)
class LineState:
    """Of the line itself, as an automation device asks for it.

    Attributes:
        ready: a trigger that comes now will be taken, as far as the line knows.
        hangs: nothing was judged or waited for in vain for seconds.
        heartbeat: counts twice a second while the line is alive, 0 to 65535.
        recipe: name of the one in use, empty where there is none.
        recipe_number: 0 where there is none.
    """

    ready: bool
    hangs: bool
    heartbeat: int
    recipe: str
    recipe_number: int


def line_state(control: LineControl | None) -> LineState:
    """As it is now; of a line that nobody outside may control, only that it is there."""
    now_s = time.monotonic()
    if control is None:
        return LineState(False, False, _beat(now_s), "", 0)
    status = control.status()
    alive_s = min(now_s, status.progress_s + _HANGS_AFTER_S)
    return LineState(
        ready=status.ready and alive_s == now_s,
        hangs=alive_s < now_s,
        heartbeat=_beat(alive_s),
        recipe=status.recipe or "",
        recipe_number=status.recipe_number,
    )


def _beat(at_s: float) -> int:
    return int(_BEATS_PER_S * at_s) & 0xFFFF


class Losses:
    """Counts what did not get through between the line and the other side, and says so, once a minute at most."""

    def __init__(self, name: str, tell: Tell | None) -> None:
        """
        Args:
            name: of the output, in messages.
            tell: takes the event.
        """
        self.count = 0
        self._name = name
        self._tell = tell
        self._told_s: float | None = None

    def add(self, what: str) -> None:
        """Count one and say it. Args: what: happened, for people."""
        self.count += 1
        now_s = time.monotonic()
        if self._told_s is not None and now_s - self._told_s < _TOLD_EVERY_S:
            return
        self._told_s = now_s
        text = f"{self._name}: {what}; {counted(self.count, 'part')} missed there since the start"
        logger.warning("%s", text)
        if self._tell is not None:
            self._tell(Event("part-lost", text, now_s))


class Handshake:
    """Four phases for a trigger, four for a result; all on one thread.

    A trigger: the other side raises Trigger, `ack` answers, it lowers Trigger, `ack` falls. A result: `shown` has it,
    the other side raises ResultsAck, `shown` falls to None, it lowers ResultsAck. A result that is not acknowledged
    when the next one comes is lost and counted; `shown` is then None until it has been read as such, so that nobody
    takes an acknowledgement of the one for one of the other.
    """

    def __init__(self, control: LineControl | None, losses: Losses) -> None:
        self.ack = False
        self.ack_part = 0
        """Number of the part that the last trigger began."""
        self.shown: Part | None = None
        self._control = control
        self._losses = losses
        self._waiting: Part | None = None
        """The newest result, while `shown` cannot have it yet."""
        self._gap_seen = True
        """`shown` was read as None since the last result was taken away without an acknowledgement."""
        self._trigger = self._results_ack = False
        self._trigger_refused = self._recipe_refused = False
        self._recipe = 0

    @property
    def error(self) -> int:
        """What Error says; that of the trigger first, which it takes away again by itself."""
        return TRIGGER_REFUSED if self._trigger_refused else RECIPE_REFUSED if self._recipe_refused else NO_ERROR

    def set_trigger(self, level: bool, *, part_id: str | None) -> None:
        """Take the level of Trigger; a part begins where it rises."""
        if level and not self._trigger:
            try:
                self.ack_part = controlled(self._control).trigger(part_id)
                self.ack = True
            except ControlError as error:
                self._trigger_refused = True
                self._losses.add(f"a trigger was refused ({error})")
        elif not level:
            self.ack = self._trigger_refused = False
        self._trigger = level

    def set_results_ack(self, level: bool) -> None:
        """Take the level of ResultsAck."""
        if level and not self._results_ack:
            self.shown = None
        self._results_ack = level
        self._show()

    def set_recipe(self, number: int) -> None:
        """Take the recipe asked for; 0 asks for none, and the same as before for nothing new."""
        if number == self._recipe:
            return
        self._recipe, self._recipe_refused = number, False
        if number:
            try:
                controlled(self._control).change_recipe(str(number))
            except ControlError as error:
                self._recipe_refused = True
                logger.warning("recipe %d was refused: %s", number, error)

    def hear(self, event: Event) -> None:
        """Take word of what became of recipes; one may be refused long after it was asked for."""
        if event.kind == "recipe-changed":
            self._recipe_refused = False
        elif event.kind == "recipe-refused" and event.details.get("recipe") == str(self._recipe):
            self._recipe_refused = True

    @property
    def is_idle(self) -> bool:
        """Whether the other side may raise Trigger, as far as this handshake goes."""
        return not (self._trigger or self.ack)

    def add(self, part: Part) -> None:
        """Take a result."""
        for lost in (self.shown, self._waiting):
            if lost is not None:
                self._losses.add(f"the result of part {lost.number} was not acknowledged before the next one came")
        if self.shown is not None:
            self.shown, self._gap_seen = None, False
        self._waiting = part
        self._show()

    def was_read(self) -> None:
        """`shown` has been read by the other side, as it was."""
        self._gap_seen = self._gap_seen or self.shown is None
        self._show()

    def end(self) -> None:
        """Count what nobody will acknowledge any more."""
        for lost in (self.shown, self._waiting):
            if lost is not None:
                self._losses.add(f"the result of part {lost.number} was not acknowledged before the end")
        self.shown = self._waiting = None

    def _show(self) -> None:
        if self._waiting is not None and self._gap_seen and not self._results_ack:
            self.shown, self._waiting = self._waiting, None


def controlled(control: LineControl | None) -> LineControl:
    """`control`, if there is one. Raises `ControlError`."""
    if control is None:
        raise ControlError("this line takes no triggers and recipes from outside; start it with --trigger software")
    return control
