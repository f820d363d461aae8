"""A kept method of anomalib's, opened: its own preparation and its network, in eager PyTorch as anomalib runs it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.alternatives.inspecting import Facts, Verdict, stages
from benchmarks.alternatives.keeping import Training, load
from benchmarks.alternatives.methods import METHODS
from stlm_edge.imaging import Image, check_frame

if TYPE_CHECKING:
    from torch import Tensor


def as_tensor(image: Image) -> Tensor:
    """(H, W, 3) uint8, BGR → (1, 3, H, W) float32, RGB, 0 … 1, as anomalib's pre-processors take it."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1])).permute(2, 0, 1)[None].float() / 255


@dataclass(frozen=True)
class Alternative:
    """Attributes: path: of the kept model, see `benchmarks.alternatives.keeping`."""

    path: Path

    @contextmanager
    def open(self) -> Iterator[Opened]:
        """Raises `DataError`, if the file is no kept model or does not fit this version of anomalib."""
        from stlm_edge.network.inference import choose_device

        module, training = load(self.path)
        device = choose_device("auto")
        yield Opened(module.to(device), device=device, facts=facts_of(self.path, module, training))


class Opened:
    """A method of anomalib's that looks at frames."""

    def __init__(self, module: Any, *, device: Any, facts: Facts) -> None:
        self._network = module.model
        self._transform = module.pre_processor.transform
        self._device = device
        self.facts = facts

    def inspect(self, image: Image) -> Verdict:
        """Args: image: (H, W, 3) uint8, BGR, of any size."""
        import torch

        check_frame(image)
        with torch.inference_mode():
            start_s = time.perf_counter()
            prepared = self._transform(as_tensor(image).to(self._device))
            if self._device.type == "cuda":
                torch.cuda.synchronize()
            prepared_s = time.perf_counter()
            answer = self._network(prepared)
            anomaly_map = np.asarray(answer.anomaly_map.float().cpu().numpy(), np.float32)
            score = float(answer.pred_score)
            done_s = time.perf_counter()
        return Verdict(anomaly_map.reshape(anomaly_map.shape[-2:]), score, stages(start_s, prepared_s, done_s))


def facts_of(path: Path, module: Any, training: Training) -> Facts:
    """What there is to say of a kept method."""
    method = METHODS[training.method]
    notes = [method.remark(training.backbone)]
    if method.epochs < 0:
        notes.append(f"{training.steps} of {method.steps} steps")
    elif method.epochs > 1:
        notes.append(f"{training.steps} steps, to epoch {training.epochs} of {method.epochs}")
    if training.coreset is not None:
        notes.append(f"remembers {100 * training.coreset:g} % of the patches")
    return Facts(
        name=method.title,
        library=f"anomalib {training.anomalib}, PyTorch",
        backbone=method.backbone_name(training.backbone),
        pretrained=method.pretrained(training.backbone),
        input_size=training.input_size,
        parameters=sum(parameter.numel() for parameter in module.model.parameters()),
        train_minutes=round(training.minutes, 2),
        model_mb=path.stat().st_size / 1e6,
        note="; ".join(note for note in notes if note),
    )
