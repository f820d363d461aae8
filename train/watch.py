"""How a training does on pictures that it does not learn from: when to stop, and what TensorBoard shows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stlm_edge.errors import ConfigError
from stlm_edge.metrics import average_precision, roc_auc
from stlm_edge.network.inference import InferencePath, prepare
from train.data import Batch, Batches
from train.distributed import average
from train.evaluation import Scores
from train.objective import any_in_cell
from train.training import EpochRecord

SHOWN = 8
"""Pictures on TensorBoard."""


class Patience:
    """Says when the held-out error has not fallen for some epochs."""

    def __init__(self, epochs: int, history: list[EpochRecord]) -> None:
        self._epochs = epochs
        self._best = math.inf
        self._since = 0
        for record in history:
            if record.held_out is not None:
                self.improves(record.held_out)

    def improves(self, error: float) -> bool:
        """Take note of an epoch's error; True if it is the lowest so far."""
        better = error < self._best
        self._best = min(self._best, error)
        self._since = 0 if better else self._since + 1
        return better

    @property
    def over(self) -> bool:
        return self._since >= self._epochs


@torch.no_grad()
def held_out_error(inspector: InferencePath, batches: Batches) -> float:
    """How badly pseudo anomalies are detected in held-out pictures, the same ones each time.

    The total loss would mostly say how well a teacher is followed, and a network that follows it better does not find
    more.

    Returns:
        1 less the mean of two areas: image AUROC of the pictures with pseudo anomalies against the same ones without,
        and average precision of the map's cells; 1 where no anomaly was drawn.
    """
    device = next(inspector.parameters()).device
    inspector.eval()
    scores, is_anomalous, cells, targets = [], [], [], []
    for drawn in batches.epoch(0):
        batch = drawn.to(device)
        for pictures, pseudo in ((batch.clean, False), (batch.pseudo, True)):
            coarse = inspector.network(prepare(pictures, inspector.spec))
            scores.append(inspector.finish(coarse)[1].cpu())
            is_anomalous += [pseudo and changed for changed in batch.changed]
        cells.append(coarse.flatten().cpu())
        targets.append(any_in_cell(batch.mask, (coarse.shape[2], coarse.shape[3])).flatten().cpu() > 0)
    labels, marked = np.array(is_anomalous), torch.cat(targets).numpy()
    if not labels.any() or marked.all() or not marked.any():
        return 1.0
    area = roc_auc(torch.cat(scores).double().numpy(), labels)
    precision = average_precision(torch.cat(cells).double().numpy(), marked)
    return float(average(torch.tensor(1 - (area + precision) / 2), device))


def summary_writer() -> Any:
    """TensorBoard's class of writers. Raises `ConfigError` if it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # an extra of its own
    except ImportError:
        raise ConfigError("tensorboard is not installed; pip install tensorboard, or leave --tensorboard out") from None
    return SummaryWriter


class Board:
    """Losses and maps for TensorBoard, in the run's folder.

    Raises:
        ConfigError: if TensorBoard is not installed.
    """

    def __init__(self, folder: Path, *, first: Batch) -> None:
        self._writer: Any = summary_writer()(str(folder))
        self._pictures = first.pseudo[:SHOWN]
        self._add("pseudo_anomalies", self._pictures, step=0)
        masks = (255 * first.mask[:SHOWN]).to(torch.uint8).permute(0, 2, 3, 1).expand(-1, -1, -1, 3)
        self._add("masks", masks, step=0)

    def show(self, record: EpochRecord, inspector: InferencePath) -> None:
        """One epoch's losses, and the maps of the same pictures each time."""
        values = {
            "loss/plain": record.plain,
            "loss/denoising": record.denoising,
            "loss/segmentation": record.segmentation,
            "held_out/error": record.held_out,
            "speed/pictures_per_s": record.pictures_per_s,
            "memory/gb": record.memory_gb,
        }
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(name, value, record.epoch)
        device = next(inspector.parameters()).device
        inspector.eval()
        with torch.no_grad():
            maps = torch.cat([inspector(picture[None].to(device))[0].cpu() for picture in self._pictures])
        grey = (255 * maps.clamp(0, 1)).to(torch.uint8).unsqueeze(-1).expand(-1, -1, -1, 3)
        self._add("anomaly_maps", grey, step=record.epoch)
        self._writer.flush()

    def show_test(self, epoch: int, scores: Scores) -> None:
        """One epoch's figures over the test pictures."""
        for name in ("image_auroc", "pixel_auroc", "pixel_ap", "aupro"):
            self._writer.add_scalar(f"test/{name}", getattr(scores, name), epoch)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _add(self, name: str, pictures: Tensor, *, step: int) -> None:
        """(N, H, W, 3) uint8, BGR."""
        self._writer.add_images(name, pictures.flip(-1), step, dataformats="NHWC")
