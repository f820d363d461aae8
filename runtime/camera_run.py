"""Cameras that are open, each with its line and outputs, and how they run: one by itself, or several on threads."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.config import CameraConfig, require_served
from runtime.engines import Engines
from runtime.faults import FaultDetector
from runtime.line import Line
from runtime.line_control import Control
from runtime.options import chosen_source
from runtime.recipes import RecipeChanger, check_recipes, chosen_recipe, open_judge, part_rule, told_of
from runtime.service import Service
from runtime.shadow import Shadow, asked_shadow
from runtime.signals import StopRequest, StopSignals, heeding
from runtime.sinks import TRIGGERS, Outputs, SinkContext, check_outputs, check_places, open_outputs
from runtime.sources import FrameSource, SourceOptions, open_source, place_of
from runtime.summary import RunRecorder, RunSummary
from runtime.watchdog import OPENING, Watchdog
from runtime.web.options import Serving
from stlm_edge.cli import give_up, print_lines
from stlm_edge.errors import ConfigError, ImageError, OutputError, SourceError, StlmError, counted
from stlm_edge.files import require_place, write_text

if TYPE_CHECKING:
    from runtime.metrics import Metrics
    from runtime.page.app import LivePage

logger = logging.getLogger(__name__)

_LOOK_S = 0.1
_printing = threading.Lock()


def run_cameras(configs: Sequence[CameraConfig], *, reads: Sequence[Path] = ()) -> None:
    """Inspect until all sources end, each has had its frames, or a signal comes; then print a summary of each.

    Args:
        configs: at least one. Of several, one that fails for good does not end the others.
        reads: files that were read, besides those of the cameras.
    Raises:
        StlmError: if something cannot be opened, or one of the cameras has failed.
    """
    require_served(configs[0])
    uris = [chosen_source(config.source, config.source_file) for config in configs]
    for config in configs:
        if config.summary is not None:
            require_place(config.summary)
        for other in uris:
            check_places(
                config.output,
                summary=config.summary,
                source=place_of(other),
                reads=[*reads, *chain(*map(_files, configs))],
            )
    _require_own_places(configs)
    for config in configs:
        with told_of(None if config.name is None else f"camera {config.name}"):
            check_outputs(config.output)
            if config.trigger == "software" and configs[0].serve is None and not any(map(_triggers, config.output)):
                raise ConfigError(
                    "found nothing that triggers, expected it with --trigger software; give an --output of "
                    f"{', '.join(TRIGGERS)}, or --serve"
                )
            if config.shadow is not None:
                asked_shadow(config.shadow)
    with ExitStack() as stack, ExitStack() as last:
        on_hang = partial(give_up, last=last.close)
        told = "was asked twice to end while a library did not return; what was decided until then is written"
        stop = stack.enter_context(StopSignals(on_stuck=partial(on_hang, told)))
        watchdog = stack.enter_context(Watchdog(configs[0].inference_timeout, on_hang=on_hang))
        shares = len(configs) > 1 or any(config.recipes for config in configs)
        engines = Engines(watchdog=watchdog, cameras=len(configs)) if shares else None
        page = stack.enter_context(_open_page(configs[0])) if configs[0].serve is not None else None
        runs: list[CameraRun] = []
        missed: list[int] = []
        stack.enter_context(heeding(signal.SIGUSR1, partial(_reread_recipes, configs, runs, missed=missed)))
        for config, uri in zip(configs, uris, strict=True):
            with told_of(None if config.name is None else f"camera {config.name}"):
                run = CameraRun.open(config, uri, stack=stack, last=last, watchdog=watchdog, engines=engines, page=page)
                runs.append(run)
        if missed:
            _reread_recipes(configs, runs, missed=[])
        if page is not None:
            page.give_metrics(stack.enter_context(_open_metrics(runs)))
        stack.enter_context(Service([run.control for run in runs], outputs=[run.outputs for run in runs]))
        if len(runs) == 1:
            with runs[0].last:
                runs[0].run(stop)
        else:
            _run_together(runs, stop)


def _reread_recipes(configs: Sequence[CameraConfig], runs: Sequence[CameraRun], *, missed: list[int]) -> None:
    """What SIGUSR1 asks for, whenever it comes. Args: missed: is added to if it comes before all cameras are open."""
    if not any(config.recipe_file for config in configs):
        logger.warning("SIGUSR1 has a recipe's file read again, and there is none; give --recipe-file")
    elif len(runs) < len(configs):
        missed.append(1)
    else:
        for run in runs:
            if run.changer is not None and run.config.recipe_file:
                run.changer.read_file()


def _triggers(uri: str) -> bool:
    return uri.startswith(TRIGGERS)


def _open_page(config: CameraConfig) -> LivePage:
    """Before engines are opened, which may take minutes that a taken port would cost. Raises `StlmError`."""
    from runtime.page.app import LivePage  # with libraries that few lines have

    assert config.serve is not None
    return LivePage(Serving(config.serve, config.serve_token, config.serve_cert, config.serve_key))


def _open_metrics(runs: Sequence[CameraRun]) -> Metrics:
    from runtime.metrics import Metrics  # with a library that few lines have

    return Metrics(runs)


def _files(config: CameraConfig) -> list[Path]:
    """What is read of a camera, besides its source."""
    said = [config, *(config.by(recipe) for recipe in config.recipes)]
    of_recipes = [path for each in said for path in (each.engine, each.roi, each.ignore) if path is not None]
    sidecars = [Path(f"{each.engine}.json") for each in said]
    shadow = "" if config.shadow is None else config.shadow.partition("?")[0]
    of_recipes += [Path(path) for path in (shadow, f"{shadow}.json") if shadow]
    texts = [Path(file) for file in (config.source_file, config.recipe_file) if file not in (None, "-")]
    return [*of_recipes, *sidecars, *texts]


def _require_own_places(configs: Sequence[CameraConfig]) -> None:
    """Raises `OutputError` if two cameras would write to one place."""
    whose: dict[str, CameraConfig] = {}
    for config in configs:
        summary = [] if config.summary is None else [str(config.summary)]
        for place in [*(uri.partition("?")[0] for uri in config.output), *summary]:
            first = whose.setdefault(os.path.realpath(place), config)
            if first is not config:
                raise OutputError(f"{place} is given to the cameras {first.name} and {config.name}; give each its own")


@dataclass(eq=False)
class CameraRun:
    """A camera with its line and outputs.

    Attributes:
        changer: where it has recipes.
        shadow: where a candidate is compared.
        last: is closed at the end of the run, by whoever runs it or where the engine hangs: what was inspected has
            happened, so outputs and summary are written.
        failure: what has ended it, of several cameras.
    """

    config: CameraConfig
    source: FrameSource
    control: Control
    outputs: Outputs
    recorder: RunRecorder
    changer: RecipeChanger | None
    shadow: Shadow | None
    last: ExitStack
    failure: Exception | None = field(default=None, init=False)

    @classmethod
    def open(
        cls,
        config: CameraConfig,
        uri: str,
        *,
        stack: ExitStack,
        last: ExitStack,
        watchdog: Watchdog,
        engines: Engines | None,
        page: LivePage | None,
    ) -> CameraRun:
        """
        Args:
            uri: of its source.
            stack: closes what must be open while the run ends.
            last: closes the run's own `last`.
            engines: opens engines that cameras or recipes have in common; None for one camera without recipes.
            page: that shows it.
        """
        recipe = chosen_recipe(config)
        options = SourceOptions(
            width=config.width,
            height=config.height,
            fps=config.fps,
            rotate=int(config.rotate),
            trigger=config.trigger,
            queue=config.queue,
        )
        if recipe is not None:
            check_recipes(config, used=recipe)
        with told_of(None if recipe is None else f"recipe {recipe.name}"):
            rule = part_rule(config.by(recipe))
            judge = open_judge(config, recipe, watchdog=watchdog, opener=None if engines is None else engines.open)
        closing = stack.enter_context(ExitStack())
        closing.callback(judge.detector.close)
        recorder = RunRecorder()
        with watchdog.watching("starting", pictures=OPENING):  # threads too, which may hang where memory is short
            source = stack.enter_context(open_source(uri, options))
            control = Control(judge, source=source)
            closing.pop_all()
            stack.callback(control.close_judges)
            context = SinkContext(
                engine_sha256=judge.detector.sidecar.engine.engine_sha256,
                fps=source.fps,
                control=control,
                tell=recorder.add_event,
                has_parts=rule.has_parts,
                camera=config.name,
            )
            changer = None
            if engines is not None and recipe is not None:
                changer = stack.enter_context(RecipeChanger(config, control, opener=engines.open))
            shadow = None
            if config.shadow is not None:
                may_wait = not source.is_live and rule.deadline_s is None
                shadow = Shadow(config.shadow, config.by(recipe), recipe=judge.recipe, may_wait=may_wait)
            publish = partial(recorder.add_stage, "publish")
            watch = None if page is None else stack.enter_context(page.watch(config, control))
            outputs = open_outputs(
                config.output,
                context=context,
                drops=source.is_live,
                on_publish=publish,
                more={} if watch is None else {watch.output: watch},
            )
            if watch is not None:
                watch.outputs = outputs
        own = last.enter_context(ExitStack())
        run = cls(config, source, control, outputs, recorder, changer, shadow, own)

        # From the last to the first, also after an error and where the engine hangs: what was inspected has happened.
        own.push(run._finish)
        own.push(outputs)
        if shadow is not None:
            own.callback(shadow.close)
        own.callback(control.close)
        own.callback(source.close)  # closing the outputs may take a while, in which it would go on dropping frames
        return run

    def run(self, stop: StopRequest) -> None:
        """Inspect until the source ends, a stop is asked for or the camera's frames are reached.

        Raises `SourceError`, `EngineError`, `ImageError`.
        """
        faults = FaultDetector() if self.config.camera_faults else None
        line = Line(
            self.source,
            self.control,
            outputs=self.outputs,
            recorder=self.recorder,
            faults=faults,
            shadow=self.shadow,
            name=self.config.name,
        )
        line.run(stop, limit=self.config.frames)
        if self.source.skipped and not self.summary().frames:
            raise ImageError(
                f"found {self.source.skipped} pictures and none that can be decoded, expected at least one; look at "
                "what is in --source"
            )

    def run_apart(self, stop: StopRequest) -> None:
        """Run on this thread to the very end, and keep what has gone wrong."""
        try:
            with self.last:
                self.run(stop)
        except Exception as error:
            self.failure = error
            others = "" if stop.requested else ", the others go on"
            logger.error("camera %s has ended%s: %s", self.config.name, others, error)
        finally:
            self.control.ended()

    def summary(self) -> RunSummary:
        """The run so far."""
        return self.recorder.summary(
            self.source,
            output_drops=self.outputs.drops,
            output_failures=self.outputs.failures,
            shadow=None if self.shadow is None else self.shadow.summary,
        )

    def _finish(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            self._report()
        except OutputError as failure:
            if error is None:
                raise
            logger.error("%s", failure)  # what ended the run is what the program should end with

    def _report(self) -> None:
        """Write the summary, and print it also where that fails. Raises `OutputError`."""
        summary, name = self.summary(), self.config.name
        try:
            if self.config.summary is not None:
                write_text(self.config.summary, summary.to_json())
        finally:
            with _printing:
                print_lines([*([] if name is None else [f"camera {name}"]), *summary.lines()])


def _run_together(runs: Sequence[CameraRun], stop: StopSignals) -> None:
    request = StopRequest()
    # Daemons, since a second signal ends the program at once.
    threads = [
        threading.Thread(target=run.run_apart, args=(request,), name=f"camera {run.config.name}", daemon=True)
        for run in runs
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for thread in threads:
            thread.join(_LOOK_S)
        if not request.requested and (stop.requested or any(run.outputs.wants_stop for run in runs)):
            request.request()
            for run in runs:
                run.source.wake()
    failed = [run for run in runs if run.failure is not None]
    for run in failed:
        if run.failure is not None and not isinstance(run.failure, StlmError):
            raise run.failure
    if failed:
        names = ", ".join(str(run.config.name) for run in failed)
        raise SourceError(
            f"{counted(len(failed), 'camera')} of {len(runs)} failed ({names}), expected none; the log says why: mend "
            "that and start again"
        )
