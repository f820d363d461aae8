"""Runs that are killed, and what became of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stlm_edge.network.checkpoint import load
from stlm_edge.spec import Threshold
from train import loop
from train.config import TrainConfig
from train.fit import fit


class Killed(BaseException):
    """Stands for a kill in the middle of an epoch."""


def kill_after(patch: pytest.MonkeyPatch, *, epochs: int) -> None:
    """Have a training of two steps an epoch stop in the middle of the next one, without any tidying up."""
    original, steps = loop._step, [0]

    def step(*arguments: Any, **options: Any) -> Any:
        steps[0] += 1
        if steps[0] > 2 * epochs + 1:
            raise Killed
        return original(*arguments, **options)

    patch.setattr(loop, "_step", step)


def killed_after(
    config: TrainConfig, epochs: int, monkeypatch: pytest.MonkeyPatch, *, plate: Path, output: Path
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, epochs=epochs)
        fit(config, data=plate, category="plate", textures=None, output=output)


def outcome(folder: Path) -> tuple[str, Threshold | None, list[tuple[int, float, float, float]]]:
    """The weights' hash, the threshold and the losses of each epoch."""
    spec = load(folder / "model.safetensors").spec
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    losses = [(line["epoch"], line["plain"], line["denoising"], line["segmentation"]) for line in lines]
    return spec.weights_sha256, spec.threshold, losses
