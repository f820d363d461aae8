"""Train, judge and time: our network's rows first, then one for each method."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path

from benchmarks.alternatives.alternative import Alternative
from benchmarks.alternatives.fitting import fit
from benchmarks.alternatives.inspecting import Facts, Opener, timing
from benchmarks.alternatives.judging import judge
from benchmarks.alternatives.keeping import Training, find_kept, keep, pictures_hash, place
from benchmarks.alternatives.methods import Backbone, Method
from benchmarks.alternatives.ours import Checkpoint, Engine, is_made_from
from benchmarks.alternatives.table import Row
from benchmarks.intervals import exact_figures
from benchmarks.record import Recorder
from benchmarks.turns import TOTAL, Contender, Schedule, Timed, take_turns
from stlm_edge.datasets import GOOD, Category
from stlm_edge.errors import DataError
from stlm_edge.spec import Size

logger = logging.getLogger(__name__)

TIMED_PICTURES = 16
"""Test pictures that are timed, in turn; each process holds them in memory."""


@dataclass(frozen=True)
class Recipe:
    """How methods are trained; see `benchmarks.alternatives.fitting.fit`.

    Attributes:
        models: folder of the trained models; those that are there already are taken.
    """

    backbone: Backbone
    input_size: Size
    textures: Path | None
    minutes: float
    coreset: float
    seed: int
    models: Path


def require_both_kinds(category: Category) -> None:
    """Raises `DataError`, unless there are good and defective test pictures."""
    good = sum(sample.label == GOOD for sample in category.test)
    if not good or good == len(category.test):
        raise DataError(
            f"{category.name} has {good} good and {len(category.test) - good} defective test pictures, expected some "
            "of both: test/good and test/<defect> beside train/good"
        )


class Comparison:
    """What there is so far, and where it is written.

    Attributes:
        rows: of what has been judged.
        failed: titles of the methods that failed.
    """

    def __init__(self, category: Category, recorder: Recorder) -> None:
        self.rows: list[Row] = []
        self.failed: list[str] = []
        self._category = category
        self._recorder = recorder
        self._openers: list[Opener] = []

    def add(self, opener: Opener) -> None:
        """Judge something that can be opened. Raises `StlmError`."""
        with opener.open() as method:
            self.rows.append(Row(method.facts, exact_figures(list(judge(method, self._category.test)))))
        self._openers.append(opener)
        self._save()

    def add_ours(self, checkpoint: Path | None, engine: Path | None) -> None:
        """Judge our network as it was trained and as it is deployed. Raises `StlmError`."""
        if checkpoint is not None:
            self.add(Checkpoint(checkpoint))
        if engine is not None:
            self.add(Engine(engine))
        if checkpoint is not None and engine is not None and is_made_from(engine, checkpoint):
            trained_facts, deployed = self.rows[-2].facts, self.rows[-1]
            deployed.facts = replace(
                deployed.facts, parameters=trained_facts.parameters, pretrained=trained_facts.pretrained
            )
            self._save()

    def add_method(self, method: Method, recipe: Recipe) -> None:
        """Train a method, unless its model is kept, and judge it; if it fails, its row says why."""
        try:
            self.add(Alternative(trained(method, self._category, recipe)))
        except Exception as error:  # whatever a library raises: the other methods go on
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            logger.warning("%s failed: %s", method.title, reason)
            self.failed.append(method.title)
            facts = Facts(
                name=method.title,
                library=f"anomalib {metadata.version('anomalib')}, PyTorch",
                backbone=method.backbone_name(recipe.backbone),
                pretrained=method.pretrained(recipe.backbone),
                input_size=recipe.input_size,
                note=f"failed: {reason}",
            )
            self.rows.append(Row(facts))
            self._save()

    def time(self, schedule: Schedule) -> None:
        """Time all that was judged, in turns; nothing, if nothing was. Raises `EngineError`, if one of them fails."""
        if not self._openers:
            return
        samples = self._category.test
        paths = [sample.path for sample in samples[:: -(-len(samples) // TIMED_PICTURES)]]
        rows = [row for row in self.rows if row.figures is not None]
        contenders = [
            Contender(row.facts.name, partial(timing, opener, paths))
            for row, opener in zip(rows, self._openers, strict=True)
        ]

        def after_turn(timed: Sequence[Timed]) -> None:
            logger.info("timed %d of %d turns", len(timed[0].turns), schedule.turns)

        for row, timed in zip(rows, take_turns(contenders, schedule, after_turn=after_turn), strict=True):
            row.timed = timed
            self._recorder.measure(f"{timed.name} {TOTAL} p50", timed.quantiles(0.5), unit="ms", better="lower")
        self._save()

    def _save(self) -> None:
        self._recorder.details["methods"] = [row.to_dict() for row in self.rows]
        self._recorder.save()


def require_kept_fit(methods: Sequence[Method], category: Category, recipe: Recipe) -> None:
    """Before minutes are spent: raises `DataError`, if a kept model is not of this category and recipe."""
    for method in methods:
        find_kept(place(recipe.models, method), training_of(method, category, recipe))


def trained(method: Method, category: Category, recipe: Recipe) -> Path:
    """Where the trained model of a method lies; it is trained if there is none. Raises as `fit` and `find_kept` do."""
    path = place(recipe.models, method)
    wanted = training_of(method, category, recipe)
    if find_kept(path, wanted) is not None:
        logger.info("%s was trained before, see %s", method.title, path)
        return path
    logger.info("training %s", method.title)
    fitted = fit(
        method,
        [sample.path for sample in category.train],
        backbone=recipe.backbone,
        size=recipe.input_size,
        textures=recipe.textures,
        minutes=recipe.minutes,
        coreset=recipe.coreset,
        seed=recipe.seed,
    )
    keep(path, fitted.network, replace(wanted, minutes=fitted.minutes, epochs=fitted.epochs, steps=fitted.steps))
    return path


def training_of(method: Method, category: Category, recipe: Recipe) -> Training:
    """The training that a recipe asks for, before it has begun."""
    return Training(
        method=method.name,
        backbone=recipe.backbone,
        input_size=recipe.input_size,
        seed=recipe.seed,
        coreset=recipe.coreset if method.name == "patchcore" else None,
        pictures=pictures_hash([sample.path for sample in category.train]),
        minutes=0.0,
        epochs=0,
        steps=0,
        anomalib=metadata.version("anomalib"),
    )
