"""Recipes of a running line: opened beside the one that judges, and put in its place when they can judge."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.backends import BackendChoice, check_engine_file, choose_backend
from runtime.backends.base import Backend, BatchAnswer
from runtime.closing import Closing
from runtime.config import CameraConfig, Recipe, find_recipe
from runtime.detector import EngineOpener
from runtime.drift_monitor import open_drift_monitor
from runtime.event import Event
from runtime.judge import Judge
from runtime.line_control import Control
from runtime.options import first_line, open_detector
from runtime.parts import PartRule
from runtime.voting import VotingRule
from runtime.watchdog import Watchdog
from stlm_edge.errors import ConfigError, ControlError, EngineError, StlmError, shortly, shown
from stlm_edge.imaging import Input
from stlm_edge.sidecar import Sidecar

logger = logging.getLogger(__name__)

_CLOSES_WITHIN_S = 10.0


@contextmanager
def told_of(what: str | None) -> Iterator[None]:
    """Say in an error what it is about, if that has a name."""
    try:
        yield
    except StlmError as error:
        if what is None:
            raise
        raise type(error)(f"{what}: {error}") from None


def part_rule(config: CameraConfig) -> PartRule:
    """When parts begin and end. Raises `ConfigError` if that cannot work."""
    deadline_s = None if config.deadline_ms is None else config.deadline_ms / 1e3
    rule = PartRule(config.trigger, frames=config.part_frames, gap_s=config.part_gap, deadline_s=deadline_s)
    rule.require_votes(VotingRule.parse(config.votes))
    return rule


def open_judge(
    config: CameraConfig, recipe: Recipe | None, *, watchdog: Watchdog | None, opener: EngineOpener | None = None
) -> Judge:
    """Open what a camera, or a recipe of it, judges by; the caller closes its detector.

    Args:
        opener: see `Detector.open`.
    Raises:
        ConfigError, EngineError, SpecError, ImageError: if something of it cannot be used.
    """
    config = config.by(recipe)
    if config.engine is None:
        raise ConfigError("found no engine, expected one of the camera or of its recipe; give --engine")
    votes, rule = VotingRule.parse(config.votes, release=config.release), part_rule(config)
    detector = open_detector(
        config.engine,
        backend=config.backend,
        threshold=config.threshold,
        unclear=config.unclear,
        roi=config.roi,
        ignore=config.ignore,
        tile=config.tile,
        watchdog=watchdog,
        opener=opener,
    )
    try:
        drift = open_drift_monitor(
            detector.spec,
            threshold=detector.threshold.value,
            whole_pictures=detector.area is None and detector.tile is None,
        )
        name, number = (None, 0) if recipe is None else (recipe.name, recipe.number)
        return Judge(rule=rule, votes=votes, recipe=name, number=number, detector=detector, drift=drift)
    except StlmError:
        detector.close()
        raise


def check_recipes(config: CameraConfig, *, used: Recipe) -> None:
    """See that the other recipes have all their files and settings that can work; engines are not opened.

    Raises as `open_judge`, with the recipe's name.
    """
    with told_of(f"recipe {used.name}"):
        has_parts = part_rule(config.by(used)).has_parts
    for recipe in config.recipes:
        if recipe is used:
            continue
        with told_of(f"recipe {recipe.name}"), open_judge(config, recipe, watchdog=None, opener=_unopened).detector:
            pass
        if part_rule(config.by(recipe)).has_parts != has_parts:
            raise ConfigError(
                f"one of the recipes {used.name} and {recipe.name} has parts and the other frames alone, expected the "
                "same of both; give part-frames, part-gap or deadline-ms to both, or a trigger to the camera"
            )


def chosen_recipe(config: CameraConfig) -> Recipe | None:
    """The recipe to begin with; None where there are none. Raises `ConfigError` where nobody says which."""
    wanted = config.recipe
    if wanted is not None and config.recipe_file is not None:
        raise ConfigError(
            f"found recipe {shown(wanted)} and recipe-file {shown(config.recipe_file)}, expected one of them; leave "
            "the other out"
        )
    if wanted is None and config.recipe_file is not None:
        wanted = _named_in(config.recipe_file)
    if not config.recipes and wanted is None:
        return None
    if wanted is None:
        names = ", ".join(recipe.name for recipe in config.recipes)
        raise ConfigError(f"found no recipe to begin with, expected one of {names}; give --recipe or --recipe-file")
    try:
        return find_recipe(config.recipes, wanted)
    except ControlError as error:
        raise ConfigError(str(error)) from None


class RecipeChanger(Closing):
    """Opens the recipe that somebody asks for, beside the one in use. Owns a thread until `close`.

    Of several that are asked for meanwhile, the last one is opened. One that cannot be opened changes nothing. Events
    say what became of each.
    """

    def __init__(self, config: CameraConfig, control: Control, *, opener: EngineOpener) -> None:
        """
        Args:
            control: is told to use what was opened, and asks for more from now on.
            opener: of engines; see `Detector.open`.
        """
        self._config = config
        self._control = control
        self._opener = opener
        self._wanted: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        """Names and numbers; None for what the file says."""
        self._opening: str | None = None
        self._is_closed = False
        # Not the one that ends the program: the line can go on without the other recipe.
        self._watchdog = Watchdog(config.inference_timeout, on_hang=self._on_hang)
        control.on_change = self.change
        # A daemon, since an engine's library may never come back from opening one.
        self._thread = threading.Thread(target=self._run, name="recipes", daemon=True)
        self._thread.start()

    def change(self, wanted: str) -> None:
        """See `LineControl.change_recipe`."""
        find_recipe(self._config.recipes, wanted)
        self._wanted.put(wanted)

    def read_file(self) -> None:
        """Use the recipe that the file names by now; may be called by a signal's handler."""
        self._wanted.put(None)

    def close(self) -> None:
        """Open no other one, and close again what is being opened, if that ends in some seconds."""
        self._is_closed = True
        self._wanted.put(None)
        self._watchdog.close()
        self._thread.join(_CLOSES_WITHIN_S)

    def _run(self) -> None:
        while True:
            wanted = self._wanted.get()
            while not self._wanted.empty():
                self._refuse(wanted, "is not opened, since another one was asked for after it")
                wanted = self._wanted.get()
            if self._is_closed:
                return
            self._opening = wanted
            try:
                self._open(wanted)
            except Exception as error:  # of an engine's library too: the line goes on, and this thread with it
                reason = str(error) if isinstance(error, StlmError) else f"{type(error).__name__}: {shortly(error)}"
                logger.debug("", exc_info=error)
                self._refuse(wanted, f"cannot be used and {self._control.judge.recipe} stays: {reason}")

    def _open(self, wanted: str | None) -> None:
        name = _named_in(self._config.recipe_file or "") if wanted is None else wanted
        recipe = find_recipe(self._config.recipes, name)
        judge = open_judge(self._config, recipe, watchdog=self._watchdog, opener=self._opener)
        if self._is_closed:
            judge.detector.close()
            return
        what = "frame" if self._control.parts is None else "part"
        self._control.use(judge)
        text = f"recipe {recipe.name} ({recipe.number}) judges from the next {what} on"
        self._control.tell(Event("recipe-changed", text, time.monotonic()))

    def _on_hang(self, text: str) -> None:
        self._refuse(self._opening, f"is not open yet and {self._control.judge.recipe} stays: {text}")

    def _refuse(self, wanted: str | None, what: str) -> None:
        details = {} if wanted is None else {"recipe": wanted}
        text = f"recipe {'of the file' if wanted is None else wanted} {what}"
        self._control.tell(Event("recipe-refused", text, time.monotonic(), details))


def _named_in(file: str) -> str:
    return first_line(file, expected="the name of a recipe", example="plate")


class _Unopened(Backend):
    """Stands for an engine whose files are there, while settings are checked."""

    name = "unopened"

    def _start(self, batch: Input) -> Callable[[], BatchAnswer]:
        raise EngineError(f"{self._path} was not opened for {len(batch)} pictures, but only looked at; open it")

    def _release(self) -> None:
        pass


def _unopened(path: Path, *, backend: BackendChoice) -> tuple[Backend, Sidecar]:
    check_engine_file(path)
    sidecar = Sidecar.read(path)
    sidecar.spec.require_threshold()
    choose_backend(path, backend)
    return _Unopened(path, spec=sidecar.spec), sidecar
