"""Everything that changes while a network learns, and how it is kept so that a killed run goes on as if nothing was."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from stlm_edge.errors import CheckpointError, shown
from stlm_edge.files import replacing
from stlm_edge.memory import ran_out
from stlm_edge.network.teachers.base import Teacher
from stlm_edge.network.weights import fingerprint, load_torch_file
from stlm_edge.records import build
from stlm_edge.seal import SEAL
from train.config import TrainConfig
from train.objective import Objective
from train.old_settings import in_new_words

STATE_VERSION = 2
"""1 had neither a seal nor settings."""

MAY_CHANGE = (
    *("batch_size", "accumulate", "precision", "device", "workers", "tensorboard", "patience", "false_alarm_rate"),
    *("unclear_rate", "folds", "groups", "group_by"),  # its parts are recorded
    *("initial_weights", "teacher_weights", "teacher_precision", "teacher_cache_gb", "compile_teacher"),
    *("memory", "memory_neighbours", "evaluate_every", "evaluate_size"),
)
"""Settings that a run may be resumed with others of; by the rest its pictures are divided, and its weights learnt."""


class Stage(Enum):
    """What learns: everything at once, or in table 5's two-stage training one after the other."""

    ALL = "all"
    STREAMS = "streams and decoder"
    AGGREGATION = "feature aggregation"


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch gave: means of the loss terms, and what it cost.

    Attributes:
        pictures_per_s: over all processes.
        memory_gb: the most that was in use so far.
        held_out: error on held-out pictures, where the training watches it, see `train.watch.held_out_error`.
    """

    epoch: int
    plain: float
    denoising: float
    segmentation: float
    pictures_per_s: float
    memory_gb: float
    held_out: float | None = None

    def __str__(self) -> str:
        terms = {name: getattr(self, name) for name in ("plain", "denoising", "segmentation")}
        told = "  ".join(f"{name} {value:.3f}" for name, value in terms.items() if value)  # 0 is a term that is not
        return f"epoch {self.epoch}  {told}  {self.pictures_per_s:.3g} pictures/s  {self.memory_gb:.1f} GB"


@dataclass
class Training:
    """A network on its way: what it is, how it is moved, and how far it has come.

    Attributes:
        schedulers: none where learning rates stay.
        scaler: for float16; does nothing otherwise.
        settings: what the run computes by, as plain values.
        run_id: of the run that this is; a state of another one is not taken. Empty where nobody knows.
        epoch: the last one that was finished.
        history: a record for each of them.
    """

    objective: Objective
    optimisers: tuple[Optimizer, ...]
    schedulers: tuple[LRScheduler, ...]
    scaler: GradScaler
    settings: dict[str, Any]
    run_id: str = ""
    epoch: int = 0
    history: list[EpochRecord] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        return next(self.objective.parameters()).device

    def move(self) -> None:
        """One step of all optimisers and schedulers by the gradients that have been added up."""
        for optimiser in self.optimisers:
            if any(parameter.grad is not None for group in optimiser.param_groups for parameter in group["params"]):
                self.scaler.step(optimiser)
        self.scaler.update()
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        for scheduler in self.schedulers:
            scheduler.step()

    def save(self, path: Path) -> None:
        """Write all of it, atomically. Raises `OutputError`."""
        state = {
            "version": STATE_VERSION,
            "objective": self.objective.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "scaler": self.scaler.state_dict(),
            "settings": {name: value for name, value in self.settings.items() if name not in MAY_CHANGE},
            "run_id": self.run_id,
            "epoch": self.epoch,
            "history": [dataclasses.asdict(record) for record in self.history],
        }
        state[SEAL] = _sha256(state)
        with replacing(path) as temporary:
            try:
                torch.save(state, temporary)
            except RuntimeError as error:  # what torch makes of a full disk
                if ran_out(error):
                    raise
                raise OSError(str(error).splitlines()[0]) from error

    def restore(self, path: Path) -> None:
        """Go back to what `save` wrote.

        Raises:
            CheckpointError: if the file is damaged, of another run, or of other settings.
        """
        with _fitting(path):
            state: dict[str, Any] = load_torch_file(path, device=self.device)
            if state["version"] not in range(1, STATE_VERSION + 1):
                raise ValueError(f"state version {shown(state['version'])}, this toolkit reads {STATE_VERSION}")
            said = state.pop(SEAL, None)
            if (said is not None or state["version"] > 1) and said != _sha256(state):
                raise ValueError("its content has another SHA-256 than it says, so it was damaged or edited")
            self._require_settings(state.get("settings", {}))
            if self.run_id and state.get("run_id", self.run_id) != self.run_id:
                raise ValueError("it is another run's")
            history = [build(EpochRecord, record) for record in state["history"]]
            if [record.epoch for record in history] != list(range(1, len(history) + 1)) or state["epoch"] != len(
                history
            ):
                raise ValueError(f"it is of epoch {shown(state['epoch'])} and tells of {len(history)}")
            epochs = int(self.settings["epochs"])
            if len(history) > epochs:
                raise ValueError(f"it is of epoch {len(history)} of {epochs}")
            self.objective.load_state_dict(state["objective"])
            if history and not state["optimisers"][0]["state"]:
                raise ValueError("its optimiser remembers nothing of the epochs before")
            for optimiser, values in zip(self.optimisers, state["optimisers"], strict=True):
                _require_same_groups(optimiser, values["param_groups"], has_rates=not self.schedulers)
                _require_shapes(optimiser, values["state"], has_begun=bool(history))
                optimiser.load_state_dict(values)
            for scheduler, values in zip(self.schedulers, state["schedulers"], strict=True):
                _require_same_schedule(scheduler, values)
                scheduler.load_state_dict(values)
            self.scaler.load_state_dict(state["scaler"])
            self.history, self.epoch = history, len(history)

    def _require_settings(self, begun_with: dict[str, Any]) -> None:
        """Raises `ValueError` if a run was begun with other settings than it has now."""
        for name, value in in_new_words(begun_with).items():
            if name in self.settings and self.settings[name] != value:
                raise ValueError(
                    f"it was begun with {name} {shown(value)}, config.yaml has {shown(self.settings[name])}; write the "
                    "old value back"
                )


def restore_plain(plain: Teacher, path: Path) -> None:
    """Give a frozen plain stream the weights that it has in a state; see `Training.restore`, which checks the rest."""
    with _fitting(path):
        objective = load_torch_file(path)["objective"]
        prefix = "network.plain."
        plain.load_state_dict(
            {name.removeprefix(prefix): tensor for name, tensor in objective.items() if name.startswith(prefix)}
        )


@contextmanager
def _fitting(path: Path) -> Iterator[None]:
    """Raises `CheckpointError` for whatever is wrong with a state within the block."""
    try:
        yield
    except Exception as error:  # a flipped byte lets the unpickler fail in any way that Python knows
        if ran_out(error):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path} does not fit this training ({reason}); train again in another folder") from None


def _sha256(state: dict[str, Any]) -> str:
    """Over all that a state holds, whatever the file's format."""
    digest = hashlib.sha256()

    def add(value: object) -> None:
        if isinstance(value, Tensor):
            digest.update(fingerprint({"": value}).encode())
        elif isinstance(value, dict):
            digest.update(f"{len(value)} names".encode())
            for name, entry in value.items():
                add(name)
                add(entry)
        elif isinstance(value, list | tuple):
            digest.update(f"{len(value)} values".encode())
            for entry in value:
                add(entry)
        else:
            digest.update(f"{value!r};".encode())

    add(state)
    return digest.hexdigest()


def _require_same_groups(optimiser: Optimizer, groups: list[dict[str, Any]], *, has_rates: bool) -> None:
    """Raises `ValueError` if an optimiser has other settings; rates may differ where a scheduler moves them."""
    for own, other in zip(optimiser.state_dict()["param_groups"], groups, strict=True):
        for name in own.keys() | other.keys():
            if name in ("lr", "initial_lr") and not has_rates:
                continue
            if own.get(name) != other.get(name):
                raise ValueError(f"its optimiser has {name} {shown(other.get(name))}, expected {shown(own.get(name))}")


def _require_shapes(optimiser: Optimizer, state: dict[int, dict[str, Any]], *, has_begun: bool) -> None:
    """Raises `ValueError` if what an optimiser remembers is of other parameters, or of none; torch does not look."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for index, remembered in state.items():
        for name, value in remembered.items():
            shape = () if name == "step" else tuple(parameters[index].shape)
            if value is not None and tuple(value.shape) != shape:
                raise ValueError(f"its optimiser remembers {tuple(value.shape)} of weights {shape}")
    if bool(state) and not has_begun:
        raise ValueError(f"its optimiser remembers {len(state)} weights before the first epoch")


def _require_same_schedule(scheduler: LRScheduler, values: dict[str, Any]) -> None:
    """Raises `ValueError` if the optimiser's rates are not on the scheduler's curve.

    How far along depends on batch sizes, which may have been others.
    """
    bases, moves, most = scheduler.base_lrs, values["last_epoch"], values["T_max"]
    if values["base_lrs"] != bases or type(moves) is not int or moves < 0 or type(most) is not int or most < 1:
        raise ValueError(f"its learning rates are those of move {shown(moves)} of {shown(most)}")
    groups = scheduler.optimizer.param_groups
    for base, rate, group in zip(bases, values["_last_lr"], groups, strict=True):
        due = base * (1 + math.cos(math.pi * moves / most)) / 2
        if group["lr"] != rate or not math.isclose(rate, due, rel_tol=1e-6, abs_tol=1e-6 * base):
            raise ValueError(f"its learning rate is {shown(group['lr'])} in move {moves} of {most}")


def begin(objective: Objective, config: TrainConfig, *, steps_per_epoch: int, run_id: str = "") -> Training:
    """Optimisers and schedules for an objective that stands on its device already."""
    device = next(objective.parameters()).device
    optimisers = make_optimisers(objective, config) if config.epochs else ()
    moves = config.epochs * -(-steps_per_epoch // config.accumulate)
    schedulers = (
        tuple(CosineAnnealingLR(optimiser, moves) for optimiser in optimisers) if config.schedule == "cosine" else ()
    )
    scaler = GradScaler(device.type, enabled=config.precision == "fp16")
    return Training(objective, optimisers, schedulers, scaler, config.to_dict(), run_id)


def make_optimisers(objective: Objective, config: TrainConfig) -> tuple[Optimizer, ...]:
    """Adam for streams and decoder; for the feature aggregation SGD with DeSTSeg's settings, or Adam (paper, 4.1.3)."""
    by_adam, by_sgd = by_optimiser(objective, config)
    betas = (0.5, 0.999)
    adam = (Adam(by_adam, lr=config.learning_rate, betas=betas, fused=True),) if by_adam else ()
    if not by_sgd:
        return adam
    aggregation = objective.network.feature_aggregation
    assert aggregation is not None  # which they are of
    in_blocks = {id(p) for name, p in aggregation.named_parameters() if "res." in name}
    blocks, rest = ([p for p in by_sgd if (id(p) in in_blocks) is first] for first in (True, False))
    return (
        *adam,
        SGD(
            [{"params": blocks, "lr": 0.1}, {"params": rest, "lr": 0.01}],
            momentum=0.9,
            weight_decay=1e-4,
            fused=True,
        ),
    )


def by_optimiser(objective: Objective, config: TrainConfig) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """What Adam moves, and what SGD does."""
    aggregation = objective.network.feature_aggregation
    head = [] if aggregation is None else list(aggregation.parameters())
    in_head = set(map(id, head))
    streams = [p for p in objective.parameters() if p.requires_grad and id(p) not in in_head]
    return ([*streams, *head], []) if config.head_optimiser == "adam" else (streams, head)


def stage_of(epoch: int, config: TrainConfig) -> Stage:
    """What learns in an epoch, counted from 1."""
    if config.streams_first == 0:
        return Stage.ALL
    first = min(max(1, round(config.streams_first * config.epochs)), config.epochs - 1)
    return Stage.STREAMS if epoch <= first else Stage.AGGREGATION


def enter(stage: Stage, objective: Objective) -> None:
    """Put everything into training mode, but streams and decoder where the feature aggregation learns alone."""
    objective.train()
    if stage is not Stage.AGGREGATION:
        return
    aggregation = objective.network.feature_aggregation
    for child in objective.network.children():
        if child is not aggregation:
            _freeze(child)
    _freeze(objective.projections)


def _freeze(module: nn.Module) -> None:
    module.eval()
    module.requires_grad_(False)
