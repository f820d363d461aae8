"""The paper's one-stage training: streams, decoder and feature aggregation learn together (sections 3.3 and 3.4)."""

from __future__ import annotations

import json
import logging
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from stlm_edge.drawing import contact_sheet, draw_regions
from stlm_edge.errors import TrainingError
from stlm_edge.files import write_text
from stlm_edge.imaging import write_image
from train.config import TrainConfig
from train.data import Batch, Batches
from train.distributed import Processes, agree, average, average_gradients
from train.objective import LossTerms
from train.out_of_memory import advice_on_memory
from train.teaching.guidance import Guidance
from train.training import EpochRecord, Stage, Training, enter, stage_of

logger = logging.getLogger(__name__)


class Ending(Enum):
    """Why a training ended."""

    FINISHED = "all epochs were trained"
    INTERRUPTED = "interrupted by Ctrl-C"
    PLATEAU = "pseudo anomalies in held-out pictures were no longer detected better"


def train(
    training: Training,
    guidance: Guidance | None,
    batches: Batches,
    *,
    config: TrainConfig,
    after_epoch: Callable[[EpochRecord], bool],
    processes: Processes | None = None,
    failures: Path | None = None,
) -> Ending:
    """Train in place, on the device where the network is, from the epoch after `training.epoch` on.

    Ctrl-C ends the training after the step at hand and keeps what was learnt.

    Args:
        guidance: None without a teacher.
        after_epoch: is told what the epoch gave and says whether to stop.
        failures: folder for a batch whose losses are no numbers.
    Raises:
        TrainingError: if a loss is not a finite number, or memory runs out.
    """
    processes = processes or Processes()
    objective = training.objective
    ending = Ending.FINISHED
    total = config.epochs * len(batches)
    with (
        deferred_interrupt() as interrupted,
        tqdm(
            total=total, initial=training.epoch * len(batches), unit="step", disable=not (processes.is_main and total)
        ) as progress,
        advice_on_memory(training, config, share=batches.share, processes=processes.count),
    ):
        first = training.epoch + 1
        for epoch in range(first, config.epochs + 1):
            stage = stage_of(epoch, config)
            enter(stage, objective)
            start_s = time.perf_counter()
            sums, tried, empty = torch.zeros(3), 0, 0
            for step, batch in enumerate(batches.epoch(epoch), start=1):
                last = step == len(batches)
                values = _step(training, guidance, batch, stage=stage, config=config, step=step, last=last)
                if not values.isfinite().all():
                    _fail(failures, batch, values, epoch=epoch, step=step)
                sums += values
                tried, empty = tried + batch.tried, empty + batch.empty
                progress.update()
                if agree(interrupted(), training.device):
                    objective.eval()
                    return Ending.INTERRUPTED
            if epoch == first and empty:
                _tell_of_empty(empty, tried, redrawn=config.empty_anomalies == "redraw")
            training.epoch = epoch
            plain, denoising, segmentation = average(sums / len(batches), training.device).tolist()
            record = EpochRecord(
                epoch,
                plain,
                denoising,
                segmentation,
                pictures_per_s=len(batches) * batches.batch_size / (time.perf_counter() - start_s),
                memory_gb=peak_memory_bytes(training.device) / 1e9,
            )
            progress.set_description_str(str(record))
            if after_epoch(record):
                ending = Ending.PLATEAU
                break
    objective.eval()
    return ending


def _step(
    training: Training,
    guidance: Guidance | None,
    batch: Batch,
    *,
    stage: Stage,
    config: TrainConfig,
    step: int,
    last: bool,
) -> Tensor:
    """Forward, backward, and every `config.accumulate` steps a move of the weights; returns the terms' values (3,)."""
    batch = batch.to(training.device)
    taught = guidance(batch) if guidance is not None and stage is not Stage.AGGREGATION else None
    terms: LossTerms = training.objective(batch, taught, aggregate=stage is not Stage.STREAMS)
    training.scaler.scale(terms.total / config.accumulate).backward()  # type: ignore[no-untyped-call]
    if step % config.accumulate == 0 or last:
        average_gradients(training.objective.parameters())
        training.move()
    return terms.values().cpu()


def _tell_of_empty(empty: int, tried: int, *, redrawn: bool) -> None:
    remedy = "" if redrawn else "; --empty-anomalies redraw draws others in their place"
    logger.info(
        "of %d pseudo anomalies in the first epoch %d came out empty (%.0f %%), and their pictures count as good%s",
        tried,
        empty,
        100 * empty / tried,
        remedy,
    )


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory that was in use so far: of the GPU, or for a CPU of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _fail(failures: Path | None, batch: Batch, values: Tensor, *, epoch: int, step: int) -> None:
    saved = (
        ""
        if failures is None
        else f"; {save_failure(failures, batch, values, epoch=epoch, step=step)} has its pictures"
    )
    raise TrainingError(
        f"in step {step} of epoch {epoch} the losses became {values.tolist()}, expected finite numbers{saved}; lower "
        "--learning-rate"
    )


def save_failure(folder: Path, batch: Batch, values: Tensor, *, epoch: int, step: int) -> Path:
    """Write the pictures of a batch as they were, a contact sheet of them, and the losses that they gave.

    Args:
        values: (3,), plain, denoising, segmentation.
    Returns:
        The folder of this step, below `folder`.
    Raises:
        OutputError: if it cannot be written.
    """
    place = folder / f"epoch-{epoch}-step-{step}"
    rows = []
    for index in range(len(batch)):
        clean, pseudo = batch.clean[index].cpu().numpy(), batch.pseudo[index].cpu().numpy()
        mask = batch.mask[index, 0].cpu().numpy()
        write_image(place / f"{index}-clean.png", clean)
        write_image(place / f"{index}-pseudo.png", pseudo)
        write_image(place / f"{index}-mask.png", np.repeat((255 * mask).astype(np.uint8)[:, :, None], 3, axis=2))
        rows.append([clean, pseudo, draw_regions(pseudo, mask, threshold=0.5)])
    captions = [str(index) for index in range(len(rows))]
    write_image(place / "contact-sheet.png", contact_sheet(rows, titles=("clean", "pseudo", "mask"), captions=captions))
    names = ("plain", "denoising", "segmentation")
    losses = {name: str(value) for name, value in zip(names, values.tolist(), strict=True)}
    write_text(place / "losses.json", json.dumps({"epoch": epoch, "step": step} | losses, indent=2) + "\n")
    return place


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
