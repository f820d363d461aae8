"""What the outside may ask of a running line: triggers and recipes, from any thread; and what it may know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

Trigger = Literal["hardware", "software", "fifo"]
"""What frames come by where each is wanted: a signal at the camera, a command to it, or the camera's own pace."""


@dataclass(frozen=True)
class LineStatus:
    """The state of a line at one moment.

    Attributes:
        ready: a trigger that comes now will be taken and its part judged.
        recipe: the name of the one in use, None where there are none.
        recipe_number: its number, 0 where there are none.
        parts: how many have a result.
        progress_s: when a frame was last judged or waited for in vain, on the clock of `time.monotonic`: a line whose
            progress stands still hangs.
    """

    ready: bool
    recipe: str | None
    recipe_number: int
    parts: int
    progress_s: float


class LineControl(Protocol):
    """The line as those see it who trigger parts and change recipes. All methods may be called on any thread."""

    def trigger(self, part_id: str | None = None) -> int:
        """Begin a part.

        Args:
            part_id: what the outside calls it; at most 100 characters.
        Returns:
            The part's number, as its result will have it.
        Raises:
            ControlError: if the line is not triggered from outside or does not run; or if the camera has not delivered
                for the part before, or there is no room for another one: then the part has the result `missed`
                already. One line for people.
        """
        ...

    def change_recipe(self, recipe: str) -> None:
        """Have the next part judged by another recipe, once it is open; returns at once.

        Whether it could be opened is told by the events `recipe-changed` and `recipe-refused`.

        Args:
            recipe: a name, or a number in decimal.
        Raises:
            ControlError: if there is no such recipe.
        """
        ...

    def status(self) -> LineStatus:
        """As it is now."""
        ...
