"""A training without training: all that it would refuse is refused, what it would cost is told, nothing is written."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from stlm_edge.errors import counted
from stlm_edge.files import require_place
from stlm_edge.network.design import PUBLISHED_WEIGHTS
from stlm_edge.network.inference import choose_device
from stlm_edge.network.teachers import give_weights
from stlm_edge.network.weights import to_fetch
from train.config import TrainConfig
from train.cost import TRAINING_GPUS, UTILISATION, Cost, cost_of
from train.distributed import Processes, this_process
from train.fit import CHECKPOINT_NAME, new_folder
from train.good_pictures import GoodPictures, read_good_pictures
from train.on_test import OnTest
from train.record import Begun, Sources, weights_files
from train.start import give_initial, network_of, warn_of_what_is_known
from train.teaching.guidance import settled
from train.teaching.teacher import bare_teacher
from train.watch import summary_writer

ASSUMED = (
    f"Assumed, not measured: {UTILISATION:.0%} of the dense peaks in the data sheets, FP32 without TF32, as the "
    "authors' network reaches by their 20 ms on an RTX 3090 (table 1). Loading pictures and evaluation are not counted."
)


@dataclass(frozen=True)
class Rehearsal:
    """What a training would do.

    Attributes:
        learnt, held: pictures that are learnt from, and held out.
        steps: of an epoch.
        batch: pictures in a step, over all processes.
        fetched: addresses of weights that are not here yet; they could not be looked into.
    """

    config: TrainConfig
    category: str
    folder: Path
    learnt: int
    held: int
    steps: int
    batch: int
    processes: int
    fetched: tuple[str, ...]
    cost: Cost

    def __str__(self) -> str:
        config, cost = self.config, self.cost
        memory = cost.memory
        lines = {
            "run": f"{self.category} into {self.folder}",
            "pictures": f"{self.learnt} to learn from, {self.held} held out, at {_size(config)}",
            "to fetch": ", ".join(self.fetched) or "nothing",
        }
        if not config.epochs:
            return _lines(lines | {"training": "none: one look at the pictures"})
        folds = f", {config.folds + 1} times" if config.folds else ""
        among = f", for each of {self.processes} processes" if self.processes > 1 else ""
        lines["steps"] = (
            f"{cost.steps:,}: {config.epochs} epochs of {self.steps}{folds}, {counted(self.batch, 'picture')} in each"
        )
        lines["a step"] = (
            f"{cost.flops / cost.steps / 1e12:.3g} TFLOP{among}: network "
            f"{cost.network_flops / cost.steps / 1e12:.3g} in {cost.precision}"
        )
        if cost.asked:
            lines["a step"] += (
                f", teacher {cost.teacher_flops / cost.steps / 1e12:.3g} in {cost.teacher_precision}, asked about "
                f"{cost.asked:.2g} pictures"
            )
        lines["memory"] = (
            f"{memory.total / 1e9:.3g} GB counted{among}: weights {memory.weights / 1e9:.2g}, optimiser "
            f"{memory.optimiser / 1e9:.2g}, activations and gradients {memory.work / 1e9:.2g}; CUDA's own comes to it"
        )
        lines["hours"] = hours_of([self])
        return _lines(lines)


class Rehearsals:
    """Of several trainings; pictures and weights that one after the other shares are looked at once."""

    def __init__(self) -> None:
        self._good: tuple[object, GoodPictures] | None = None  # the last alone, since pictures take much memory
        self._weights: dict[object, tuple[str, ...]] = {}

    def rehearse(
        self,
        config: TrainConfig,
        *,
        data: Path,
        category: str | None,
        textures: Path | None,
        output: Path | None,
        begun: Begun | None = None,
        retrained: bool = False,
    ) -> Rehearsal:
        """Check all that `train.fit.fit` would check, and count what it would cost.

        Pictures are decoded and divided, weights that are here are read and compared with the network. Nothing is
        fetched or written.

        Args:
            begun: the run in `output`, if one would go on with it.
            retrained: half a training that lies in `output` would be replaced, as `train.runs.bring_to_end` does.
        Raises:
            StlmError: as `fit` would.
        """
        processes, device = this_process(), choose_device(config.device)
        if begun is None:
            folder = output if output and retrained else new_folder(output, data=data, category=category)
            sources = Sources(data, category, textures, weights_files(config))
        else:
            assert output is not None  # which it is in
            folder, sources = output, begun.sources.moved(data=data, textures=textures, teacher_weights=None)
        require_place(folder / CHECKPOINT_NAME)
        settled(config.teacher_precision, device)
        if config.tensorboard:
            summary_writer()
        if config.evaluate_every:
            OnTest(sources, folder, config, begun=begun is not None, processes=Processes())
        good = self._pictures(config, sources, folder, begun)
        with good.batches(good.division.learnt, config, processes) as batches:
            steps, batch, share, varies = len(batches), batches.batch_size, batches.share, batches.varies
        learnt = len(good.division.learnt)
        fetched = () if begun is not None else self._missing(sources.located(config), good)
        return Rehearsal(
            config=config,
            category=good.category,
            folder=folder,
            learnt=learnt,
            held=len(good.division.held),
            steps=steps,
            batch=batch,
            processes=processes.count,
            fetched=fetched,
            cost=cost_of(config, pictures=learnt, steps=steps, share=share, varies=varies),
        )

    def _pictures(self, config: TrainConfig, sources: Sources, folder: Path, begun: Begun | None) -> GoodPictures:
        named = {
            name: getattr(config, name) for name in ("image_size", "skip_corrupt", "groups", "group_by", "holdout")
        }
        named |= {name: getattr(config, name) for name in ("seed", "heads", "epochs", "memory", "rotation")}
        key = (named, sources.data, sources.category, sources.textures, begun)
        if self._good is None or self._good[0] != key:
            self._good = None  # before others take its memory
            self._good = key, read_good_pictures(config, sources, folder, begun)
        return self._good[1]

    def _missing(self, config: TrainConfig, good: GoodPictures) -> tuple[str, ...]:
        """Addresses of weights that are not here. Raises as `check_weights`."""
        named = ("architecture", "image_size", "epochs", "initial_weights", "random_encoders", "distillation")
        key = (config.design, config.teacher, config.teacher_weights, *(getattr(config, name) for name in named))
        if key not in self._weights:
            self._weights[key] = check_weights(config)
        if to_fetch(config.initial_weights) is None:
            with torch.device("meta"):
                network = network_of(config)
            warn_of_what_is_known(config, good, network)
        return self._weights[key]


def check_weights(config: TrainConfig) -> tuple[str, ...]:
    """Compare the weights that are here with the network and the teacher, whose own values are never made.

    Returns:
        The addresses of those that a training would have to fetch.
    Raises:
        WeightsError, ConfigError: as `train.start.build` does.
    """
    with torch.device("meta"):
        network = network_of(config)
        teacher = bare_teacher(config, channels=network.architecture.embedding_channels)
    initial = to_fetch(config.initial_weights) if config.epochs else None
    with _without_values():
        comes_along = initial is None and give_initial(network, config, None)
        if teacher is None or comes_along:
            return () if initial is None else (initial,)
        taught = teacher.to_fetch() if config.teacher_weights == PUBLISHED_WEIGHTS else None
        if taught is None:
            give_weights(teacher, name=config.teacher, weights=config.teacher_weights)
    return tuple(dict.fromkeys(address for address in (initial, taught) if address is not None))


@contextmanager
def _without_values() -> Iterator[None]:
    """Weights are compared and not kept; torch would warn of each tensor that it does not copy."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*which is a no-op", category=UserWarning)
        yield


def told(rehearsals: Sequence[Rehearsal]) -> str:
    """Of the trainings of one command, for people."""
    texts = [str(each) for each in rehearsals]
    if len(rehearsals) > 1:
        texts.append(_lines({"all": counted(len(rehearsals), "training"), "hours": hours_of(rehearsals)}))
    return "\n\n".join([*texts, ASSUMED] if any(each.cost.steps for each in rehearsals) else texts)


def hours_of(rehearsals: Sequence[Rehearsal]) -> str:
    """On each of `TRAINING_GPUS`, one after the other."""
    return ", ".join(
        f"{gpu.name} {hours_text(sum(each.cost.hours(gpu) for each in rehearsals))}" for gpu in TRAINING_GPUS
    )


def hours_text(hours: float) -> str:
    """Such as `0.02`, `1.4`, `330`."""
    if hours < 0.01:
        return "<0.01"
    return f"{hours:.2g}" if hours < 10 else f"{hours:,.0f}"


def _size(config: TrainConfig) -> str:
    return "{} x {}".format(*config.image_size)


def _lines(entries: dict[str, str]) -> str:
    return "\n".join(f"{name:<10}{text}" for name, text in entries.items())
