"""The paper's one-stage training: streams, decoder and feature aggregation learn together (sections 3.3 and 3.4)."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR
from tqdm import tqdm

from stlm_edge.errors import TrainingError
from stlm_edge.network.inspector import prepare
from stlm_edge.network.stlm import Stlm
from stlm_edge.spec import ModelSpec
from train.config import TrainConfig
from train.data import Batch, Batches
from train.losses import any_in_cell, bce_dice_loss, distillation_loss, focal_loss, l1_loss, shrink_mask
from train.teacher import Projections, Teacher


@dataclass(frozen=True)
class LossTerms:
    """The terms of equation 8, each a scalar: distillation of both streams, segmentation of the pseudo anomalies."""

    plain: Tensor
    denoising: Tensor
    segmentation: Tensor

    @property
    def total(self) -> Tensor:
        return self.plain + self.denoising + self.segmentation


@dataclass(frozen=True)
class EpochLosses:
    """Means over one epoch."""

    epoch: int
    plain: float
    denoising: float
    segmentation: float


def make_optimisers(network: Stlm, projections: Projections, config: TrainConfig) -> tuple[Optimizer, ...]:
    """Adam for streams and decoder; for the feature aggregation SGD with DeSTSeg's settings, or Adam (paper, 4.1.3)."""
    modules = (network.plain, network.denoising, network.decoder, projections)
    streams = [parameter for module in modules for parameter in module.parameters()]
    betas = (0.5, 0.999)
    aggregation = network.feature_aggregation
    if config.head_optimiser == "adam":
        everything = [*streams, *aggregation.parameters()]
        return (Adam(everything, lr=config.learning_rate, betas=betas),)
    head = [*aggregation.aspp.parameters(), *aggregation.head.parameters()]
    return (
        Adam(streams, lr=config.learning_rate, betas=betas),
        SGD(
            [{"params": [*aggregation.res.parameters()], "lr": 0.1}, {"params": head, "lr": 0.01}],
            momentum=0.9,
            weight_decay=1e-4,
        ),
    )


def compute_losses(
    network: Stlm, teacher: Teacher, projections: Projections, batch: Batch, *, spec: ModelSpec, config: TrainConfig
) -> LossTerms:
    """The terms of equation 8 for one batch; the teacher sees the pseudo-anomalous and the clean pictures at once."""
    clean, pseudo = prepare(batch.clean, spec), prepare(batch.pseudo, spec)
    taught = teacher(torch.cat([pseudo, clean]))
    features = network.features(pseudo)
    logits = network.aggregate(features)
    shrink = any_in_cell if config.mask_target == "any" else shrink_mask
    target = shrink(batch.mask, (logits.shape[2], logits.shape[3]))
    if config.segmentation_loss == "bce-dice":
        segmentation = bce_dice_loss(logits, target)
    else:
        prediction = torch.sigmoid(logits)
        segmentation = focal_loss(prediction, target) + l1_loss(prediction, target)
    count = len(clean)
    return LossTerms(
        plain=distillation_loss(projections(features.plain), [layer[:count] for layer in taught]),
        denoising=distillation_loss(projections(features.denoising), [layer[count:] for layer in taught]),
        segmentation=segmentation,
    )


def train(
    network: Stlm,
    teacher: Teacher,
    batches: Batches,
    *,
    spec: ModelSpec,
    config: TrainConfig,
    after_epoch: Callable[[EpochLosses], None],
) -> bool:
    """Train in place, on the device where the network is; leaves it in evaluation mode.

    Ctrl-C ends the training after the step at hand and keeps what was learnt.

    Returns:
        True if all epochs were trained, False if they were cut short by Ctrl-C.
    Raises:
        TrainingError: if a loss is not a finite number.
    """
    device = next(network.parameters()).device
    network.to(memory_format=torch.channels_last)  # a quarter faster on a CPU
    teacher.to(memory_format=torch.channels_last)
    projections = Projections(network.architecture.embedding_channels, teacher.channels).to(device)
    optimisers = make_optimisers(network, projections, config)
    schedulers = [CosineAnnealingLR(optimiser, config.epochs * len(batches)) for optimiser in optimisers]
    network.train()
    with deferred_interrupt() as interrupted, tqdm(total=config.epochs * len(batches), unit="step") as progress:
        for epoch in range(1, config.epochs + 1):
            sums = torch.zeros(3)
            for batch in batches.epoch(epoch):
                terms = compute_losses(network, teacher, projections, batch.to(device), spec=spec, config=config)
                for optimiser in optimisers:
                    optimiser.zero_grad(set_to_none=True)
                terms.total.backward()  # type: ignore[no-untyped-call]
                for optimiser in optimisers:
                    optimiser.step()
                if config.schedule == "cosine":
                    for scheduler in schedulers:
                        scheduler.step()
                sums += _checked(terms, epoch=epoch)
                progress.update()
                if interrupted():
                    network.eval()
                    return False
            means = EpochLosses(epoch, *(sums / len(batches)).tolist())
            progress.set_description_str(
                f"epoch {epoch}/{config.epochs}  plain {means.plain:.3f}  denoising {means.denoising:.3f}  "
                f"segmentation {means.segmentation:.3f}"
            )
            after_epoch(means)
    network.eval()
    return True


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Within the block, the first Ctrl-C is only noted, for a step to be finished; a second one interrupts."""
    seen = False

    def note(_signal: int, _frame: FrameType | None) -> None:
        nonlocal seen
        seen = True
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: seen
    finally:
        signal.signal(signal.SIGINT, previous)


def _checked(terms: LossTerms, *, epoch: int) -> Tensor:
    values = torch.stack([terms.plain, terms.denoising, terms.segmentation]).detach().cpu()
    if not values.isfinite().all():
        raise TrainingError(
            f"in epoch {epoch} the losses became {values.tolist()}, expected finite numbers; lower --learning-rate"
        )
    return values
