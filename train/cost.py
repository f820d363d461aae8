"""What a training takes, told before it begins: FLOPs and bytes of a step counted on shapes, hours from data sheets.

A step is run on tensors without values, so that settings of any size are counted in seconds and without memory. What
comes of it is a count, and the hours are an estimate: they rest on `UTILISATION`, which is an assumption.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from stlm_edge.network.inference import prepare
from stlm_edge.spec import ModelSpec
from stlm_edge.tensorrt import GPU_PEAKS, GpuPeaks
from train.config import TrainConfig
from train.data import Batch
from train.objective import Objective
from train.start import network_of
from train.teaching.guidance import DTYPES, Precision, autocast, lower
from train.teaching.teacher import Taught, bare_teacher
from train.training import Stage, by_optimiser, enter, stage_of

UTILISATION = 0.25
"""Share of a GPU's dense peak that a training is assumed to reach, on every GPU and in every precision.

It is what the authors' network reaches by their own figure: 20 ms a picture on an RTX 3090 (table 1) are 0.175 TFLOP in
20 ms, 24.6 % of 35.6 TFLOPS. Nobody has measured a training of this toolkit on a GPU.
"""

TRAINING_GPUS = tuple(GPU_PEAKS[name] for name in ("rtx3090", "rtx4090", "a100", "h100"))
"""Those of `GPU_PEAKS` that one trains on; they have bf16, in which the teacher is asked on them."""


@dataclass(frozen=True)
class Memory:
    """Bytes that a step takes on a GPU, counted; CUDA's own, its libraries' workspaces and gaps are not among them.

    Attributes:
        weights: of network and teacher, what is learnt and what is frozen.
        optimiser: what Adam and SGD remember.
        work: the most that lives beside them at once: activations, gradients, the batch.
    """

    weights: int
    optimiser: int
    work: int

    @property
    def total(self) -> int:
        return self.weights + self.optimiser + self.work


@dataclass(frozen=True)
class Cost:
    """Of a training on one GPU; with several processes, of one of them.

    Attributes:
        steps: of all epochs, those of the folds among them.
        network_flops, teacher_flops: over all steps, two for each multiply-add.
        asked: pictures that the teacher is asked about in a step, in the mean.
        precision, teacher_precision: that they are computed in.
    """

    steps: int
    network_flops: float
    teacher_flops: float
    asked: float
    precision: Precision
    teacher_precision: Precision
    memory: Memory

    @property
    def flops(self) -> float:
        return self.network_flops + self.teacher_flops

    def hours(self, gpu: GpuPeaks) -> float:
        """At `UTILISATION` of the GPU's peaks; loading pictures and evaluation are taken to cost nothing."""
        network = self.network_flops / gpu.peak_flops_s(self.precision)
        return (network + self.teacher_flops / gpu.peak_flops_s(self.teacher_precision)) / UTILISATION / 3600


@dataclass(frozen=True)
class _Step:
    """What a step takes by stage, and asking the teacher about a picture.

    Attributes:
        kept_bytes: of a picture's features, as the teacher's cache keeps them.
    """

    network_flops: Mapping[Stage, int]
    teacher_flops: int
    kept_bytes: int
    memory: Memory


def cost_of(config: TrainConfig, *, pictures: int, steps: int, share: int, varies: bool) -> Cost:
    """Count a training.

    Args:
        pictures: that are learnt from.
        steps: of an epoch.
        share: pictures in a step of one process.
        varies: whether the good pictures come back changed, so that what the teacher says of them is not kept.
    Raises:
        ConfigError: if the settings do not go together with the network or the teacher.
    """
    precision = _teacher_precision(config)
    if not config.epochs:
        return Cost(0, 0, 0, 0, config.precision, precision, Memory(0, 0, 0))
    # What changes no shape is put aside, so that many presets of a grid are counted once.
    step = _count_step(dataclasses.replace(config, **_NO_SHAPE), share)
    stages = [stage_of(epoch, config) for epoch in range(1, config.epochs + 1)]
    taught = sum(stage is not Stage.AGGREGATION for stage in stages)
    keeps = not varies and pictures * step.kept_bytes <= config.teacher_cache_gb * 1e9
    passes = taught * config.anomaly_probability + (min(taught, 1) if keeps else taught)
    asked = steps * share * passes if step.teacher_flops else 0.0
    trainings = 1 + config.folds
    return Cost(
        steps=trainings * config.epochs * steps,
        network_flops=float(trainings * steps * sum(step.network_flops[stage] for stage in stages)),
        teacher_flops=trainings * asked * step.teacher_flops,
        asked=asked / (config.epochs * steps),
        precision=config.precision,
        teacher_precision=precision,
        memory=step.memory,
    )


_NO_SHAPE: dict[str, Any] = {
    **dict.fromkeys(("seed", "folds", "patience", "memory", "evaluate_every", "evaluate_size"), 0),
    **dict.fromkeys(("groups", "group_by"), ""),
    "memory_neighbours": 1,
    "epochs": 2,
    "holdout": 0.1,
    "anomaly_probability": 0.5,
    "pseudo_anomalies": "perlin",
    "rotation": "none",
    "random_encoders": False,
    "initial_weights": "mobile_sam",
    "teacher_weights": "published",
    "device": "auto",
}
"""Settings that decide nothing of what a step computes and keeps, and one value of each."""


@lru_cache(maxsize=64)
def _count_step(config: TrainConfig, share: int) -> _Step:
    size, precision = config.image_size, _teacher_precision(config)
    spec = ModelSpec("none", config.architecture, size, size, weights_sha256="")
    with torch.device("meta"):
        network = network_of(config)
        channels = network.architecture.embedding_channels
        teacher = bare_teacher(config, channels=channels)
        channels = channels if teacher is None else teacher.channels
        if teacher is not None and network.denoising is None:
            teacher = None  # nothing is distilled
        if teacher is not None:
            lower(teacher, precision)
        objective = Objective(network, config, spec=spec, teacher_channels=channels)
    with FakeTensorMode(allow_non_fake_inputs=True):  # and not meta tensors, for which there is no mixed precision
        objective.to_empty(device="cpu")
        batch = _batch(config, share)
        given = sum(tensor.nbytes for tensor in (batch.clean, batch.pseudo, batch.mask))
        by_adam, by_sgd = by_optimiser(objective, config)
        optimiser = sum(2 * tensor.nbytes for tensor in by_adam) + sum(tensor.nbytes for tensor in by_sgd)
        weights, work, kept, asking = _bytes(objective), 0, 0, 0
        taught = None
        if teacher is not None:
            teacher.to_empty(device="cpu").require_size(torch.zeros(1, 3, *size))
            weights += _bytes(teacher)
            with _counted() as teaching, torch.no_grad(), autocast(precision, torch.device("cpu")):
                layers = teacher(prepare(batch.clean, spec), config.layers)
                layers = tuple(layer.to(DTYPES[precision]) for layer in layers)
            taught, work, asking = Taught(layers, layers), teaching.most_bytes, teaching.flops // share
            kept = sum(layer.nbytes for layer in layers) // share
        flops = {}
        for stage in _stages(config):
            enter(stage, objective)
            told = None if stage is Stage.AGGREGATION else taught
            with _counted() as learning:
                objective(batch, told, aggregate=stage is not Stage.STREAMS).total.backward()
            flops[stage], work = learning.flops, max(work, learning.most_bytes)
            objective.zero_grad(set_to_none=True)
    return _Step(flops, asking, kept, Memory(weights, optimiser, given + work))


def _stages(config: TrainConfig) -> tuple[Stage, ...]:
    """In this order, since what the last one freezes stays frozen."""
    return (Stage.STREAMS, Stage.AGGREGATION) if config.streams_first else (Stage.ALL,)


def _batch(config: TrainConfig, share: int) -> Batch:
    pictures = torch.zeros(share, *config.image_size, 3, dtype=torch.uint8)
    mask = torch.zeros(share, 1, *config.image_size)
    folds = tuple(number % config.heads for number in range(share))
    return Batch(pictures, pictures.clone(), mask, (False,) * share, (None,) * share, folds)


def _teacher_precision(config: TrainConfig) -> Precision:
    """That of `TRAINING_GPUS`."""
    return "bf16" if config.teacher_precision == "auto" else config.teacher_precision


def _bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in module.state_dict().values())


def _backward_flops(
    grad_out: Any,
    x: Any,
    w: Any,
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: Any,
    *rest: Any,
    **_: Any,
) -> int:
    """Of a convolution, for whichever of its input and its weights want gradients: each as much as forwards.

    torch's own count of the weights' gradient is too high by the number of groups, 64 to 1280 in TinyViT.
    """
    wanted = rest[2]
    return int(conv_flop_count(x, w, grad_out, transposed)) * sum(map(bool, wanted[:2]))


_BACKWARD = {torch.ops.aten.convolution_backward: _backward_flops}


@dataclass
class _Count:
    """Of what was computed: FLOPs, and the most bytes of its results that lived at once."""

    flops: int = 0
    most_bytes: int = 0


@contextmanager
def _counted() -> Iterator[_Count]:
    """Counts what is computed in the block; the figures are there at its end."""
    count = _Count()
    with FlopCounterMode(display=False, custom_mapping=_BACKWARD) as counter, LiveBytes() as live:
        yield count
    count.flops, count.most_bytes = counter.get_total_flops(), live.most


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of all tensors that are made within and live at once.

    Attributes:
        most: at any moment so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = self._now = 0
        self._counted: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        given = {id(tensor.untyped_storage()) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        for tensor in tree_leaves(made):
            storage = tensor.untyped_storage() if isinstance(tensor, Tensor) else None
            # What was given is a view of it or was changed in place.
            if storage is not None and id(storage) not in self._counted and id(storage) not in given:
                self._counted.add(id(storage))
                self._now += storage.nbytes()
                weakref.finalize(storage, self._let_go, id(storage), storage.nbytes())
        self.most = max(self.most, self._now)
        return made

    def _let_go(self, key: int, size: int) -> None:
        self._counted.discard(key)
        self._now -= size
