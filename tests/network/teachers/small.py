"""A teacher on a backbone of half a million parameters, and pictures for it."""

from __future__ import annotations

import torch

from stlm_edge.network.teachers import teacher_named
from stlm_edge.network.teachers.timm_backbone import TimmTeacher

SMALL = "test_resnet"
"""The smallest of timm's with an ordinary shape: 0.5 M parameters."""
SIZE = (64, 96)
CHANNELS = 64


def backbone(name: str = SMALL, *, channels: int = CHANNELS) -> TimmTeacher:
    torch.manual_seed(0)
    teacher = teacher_named(f"timm:{name}", image_size=SIZE, channels=channels)
    assert isinstance(teacher, TimmTeacher)
    return teacher


def pixels(count: int = 4, *, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(seed))
