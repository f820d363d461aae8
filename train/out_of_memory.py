"""What to say when memory runs out in a training: settings that need less of it, and only such as would train."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from stlm_edge.errors import ConfigError, TrainingError
from stlm_edge.memory import ran_out
from stlm_edge.spec import SIZE_MULTIPLE
from train.config import TrainConfig
from train.training import Training


@contextmanager
def advice_on_memory(training: Training, config: TrainConfig, *, share: int, processes: int) -> Iterator[None]:
    """Within the block, an error that says that memory ran out becomes a `TrainingError` that says what needs less.

    Args:
        share: pictures in a step of one process.
    """
    try:
        yield
    except Exception as error:  # whichever library asked for memory
        if not ran_out(error):
            raise
        height, width = config.image_size
        raise TrainingError(
            f"memory ran out in a step of {share} pictures of {height} x {width} in {config.precision}; "
            + _advice(training, config, share=share, processes=processes)
        ) from error


def _advice(training: Training, config: TrainConfig, *, share: int, processes: int) -> str:
    ways = []
    smaller = _smaller_steps(config, share=share, processes=processes)
    if smaller is not None:
        batch_size, accumulate = smaller
        ways.append(f"--batch-size {batch_size} --accumulate {accumulate} (the weights move as before)")
    if config.precision == "fp32":
        ways.append(f"--precision {_half_precision(training.device)}")
    size = _smaller_pictures(config)
    if size is not None:
        ways.append(f"--image-size {size[0]}x{size[1]}")
    if not ways:
        return "nothing can be lowered any more: end other programs that use it, or take a machine with more"
    # Where there is a model already, none is trained over it.
    again = f"train again{' into another folder' if training.epoch else ''} with {' or '.join(ways)}"
    if smaller is not None and training.epoch:
        return (
            f"write batch_size: {smaller[0]} and accumulate: {smaller[1]} into its config.yaml and resume, or {again}"
        )
    return again


def _smaller_steps(config: TrainConfig, *, share: int, processes: int) -> tuple[int, int] | None:
    """Batch size and steps added up that move the weights by as many pictures as now; None if each step has but one."""
    parts = next((parts for parts in range(2, share + 1) if share % parts == 0), None)
    return None if parts is None else (processes * share // parts, config.accumulate * parts)


def _half_precision(device: torch.device) -> str:
    """What the device computes in: a GPU without bf16 emulates it."""
    emulated = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return "fp16" if emulated else "bf16"


def _smaller_pictures(config: TrainConfig) -> tuple[int, int] | None:
    """Half the sides, or as near as the network takes; None if they are as small as the settings allow."""
    height, width = (max(side // 2 // SIZE_MULTIPLE, 1) * SIZE_MULTIPLE for side in config.image_size)
    if (height, width) == config.image_size:
        return None
    try:
        dataclasses.replace(config, image_size=(height, width))
    except ConfigError:
        return None
    return height, width
