"""Several training processes that compute what one would compute with the same global batch.

Any launcher works that sets torch's environment variables, `accelerate launch` and `torchrun` among them. Gradients are
averaged after each backward pass and batch statistics are taken over all processes, so that the losses are those of one
process; torch's own `SyncBatchNorm` knows GPUs only.
"""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from stlm_edge.errors import DataError, StlmError
from stlm_edge.network.feature_aggregation import PooledBatchNorm2d

logger = logging.getLogger(__name__)

T = TypeVar("T")

LONGEST_WAIT = timedelta(days=30)
"""For the main process; torch by itself gives up after ten minutes or half an hour."""


@dataclass(frozen=True)
class Processes:
    """Which of how many training processes this one is; by default the only one."""

    index: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this one writes files and talks."""
        return self.index == 0


def this_process() -> Processes:
    """Which of how many this one is, by what the launcher has set."""
    return Processes(_number("RANK", default=0), _number("WORLD_SIZE", default=1))


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[Processes, torch.device]]:
    """Meet the other processes that the launcher started, if there are any, and part at the end.

    Yields:
        This process's place, and its own device: with several GPUs the one of its local number.
    """
    count = _number("WORLD_SIZE", default=1)
    if count == 1:
        yield Processes(), device
        return
    processes = this_process()
    if device.type == "cuda":
        device = torch.device("cuda", _number("LOCAL_RANK", default=0))
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, rank=processes.index, world_size=processes.count)
    if not processes.is_main:
        logging.disable(logging.WARNING)
    try:
        if os.environ.get("ACCELERATE_MIXED_PRECISION", "no") != "no":
            logger.warning("accelerate's --mixed_precision is not used here; give --precision")
        yield processes, device
    finally:
        logging.disable(logging.NOTSET)
        dist.destroy_process_group()


def _number(name: str, *, default: int) -> int:
    """What the launcher says: torch's name, or Open MPI's, by which accelerate starts several processes on a CPU."""
    return int(os.environ.get(name) or os.environ.get(f"OMPI_COMM_WORLD_{name.removeprefix('WORLD_')}") or default)


@contextmanager
def main_first(processes: Processes) -> Iterator[None]:
    """The main process does what is in the block before the others do it: a download, say."""
    if not processes.is_main:
        dist.barrier()
    yield
    if processes.is_main and processes.count > 1:
        dist.barrier()


def waiting_room(processes: Processes) -> dist.ProcessGroup | None:
    """A group in which `agree` and `by_main` wait for a process that does something alone, however long that takes.

    All processes have to ask for it. By gloo, since NCCL would keep a waiting GPU busy.

    Returns:
        None where there are no others.
    """
    if processes.count == 1:
        return None
    room = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
    assert isinstance(room, dist.ProcessGroup)  # which it is of a process that is in the group
    return room


def agreed(processes: Processes, look: Callable[[], T], *, told: Callable[[T], str]) -> T:
    """What each process finds for itself, on its own machine perhaps.

    Args:
        told: what must be the same for all, in words.
    Raises:
        StlmError: what `look` raises; where there are several processes, in all of them.
        DataError: in all of them, if they find different things.
    """
    if processes.count == 1:
        return look()
    found, fault, says = None, "", ""
    try:
        found = look()
        says = told(found)
    except StlmError as error:
        fault = str(error)
    answers: list[Any] = [None] * processes.count
    dist.all_gather_object(answers, (platform.node(), fault, says))
    for index, (node, its_fault, _) in enumerate(answers):
        if its_fault:
            raise DataError(f"process {index} on {node}: {its_fault}")
    for index, (node, _, its) in enumerate(answers):
        if its != answers[0][2]:
            raise DataError(
                f"process {index} on {node} has {its} and process 0 on {answers[0][0]} {answers[0][2]}, expected the "
                "same in all; give every machine the same files"
            )
    return cast(T, found)


def by_main(processes: Processes, compute: Callable[[], T], *, room: dist.ProcessGroup | None) -> T:
    """What the main process computes, in all of them: it is done once, and rounding cannot divide them.

    Args:
        room: where the others wait for it, see `waiting_room`.
    """
    if processes.count == 1:
        return compute()
    value = [compute() if processes.is_main else None]
    dist.broadcast_object_list(value, src=0, group=room)
    return cast(T, value[0])


def summed(value: Tensor) -> Tensor:
    """The sum over all processes, with gradients; without others `value` itself."""
    if not dist.is_initialized():
        return value
    total: Tensor = all_reduce(value)  # type: ignore[no-untyped-call]
    return total


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace all gradients by their mean over the processes, in one exchange for each type of number."""
    if not dist.is_initialized():
        return
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            by_type.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for gradients in by_type.values():
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def average(values: Tensor, device: torch.device) -> Tensor:
    """The mean over all processes, without gradients, on the CPU; exchanged by way of `device`."""
    if not dist.is_initialized():
        return values.cpu()
    values = values.to(device, copy=True)
    dist.all_reduce(values)
    return values.cpu() / dist.get_world_size()


def agree(flag: bool, device: torch.device, *, room: dist.ProcessGroup | None = None) -> bool:
    """Whether any process raises its flag; so all of them stop together.

    Args:
        device: the CPU in a waiting room.
    """
    if not dist.is_initialized():
        return flag
    votes = torch.tensor(float(flag), device=device)
    dist.all_reduce(votes, group=room)
    return bool(votes > 0)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation by the statistics of the whole batch, wherever its pictures are."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not dist.is_initialized():
            return super().forward(x)
        values = x.float()
        count = x.numel() // x.shape[1] * dist.get_world_size()
        mean = summed(values.sum(dim=(0, 2, 3))) / count
        centred = values - mean.reshape(1, -1, 1, 1)
        variance = summed((centred * centred).sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.reshape(1, -1, 1, 1) + self.bias.reshape(1, -1, 1, 1)).to(x.dtype)


def share_batch_norms(module: nn.Module) -> None:
    """Let every batch normalisation below `module` take its statistics over all processes; its weights stay.

    So also a pooled value has others beside it where each process has one picture only.
    """
    for child in module.modules():
        if type(child) in (nn.BatchNorm2d, PooledBatchNorm2d):
            child.__class__ = SharedBatchNorm2d
