"""Teachers by name."""

from __future__ import annotations

import pytest
import torch

from stlm_edge.errors import ConfigError, WeightsError
from stlm_edge.network import teachers
from stlm_edge.network.decoder import Features
from stlm_edge.network.design import Design, Layers
from stlm_edge.network.encoder import ARCHITECTURES
from stlm_edge.network.stlm import Stlm
from stlm_edge.network.teachers import teacher_named
from stlm_edge.network.teachers.base import Teacher, Weights
from tests.network.teachers.small import CHANNELS, SIZE


class Brightness(Teacher):
    """A teacher more, as CONTRIBUTING says how to add one."""

    name = "brightness"
    needs_weights = False

    def __init__(self) -> None:
        super().__init__(torch.nn.AvgPool2d(16), channels=3)

    def forward(self, pixels: torch.Tensor, layers: Layers = "l1+l2") -> Features:
        layer: torch.Tensor = self.encoder(pixels)
        return (layer, layer) if layers == "l1+l2" else (layer,)

    def load(self, weights: Weights) -> None:
        raise WeightsError("it has none")


def test_teacher_more_is_a_class_and_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stlm_edge.network.design.TEACHERS", ("brightness",))
    monkeypatch.setitem(teachers._MAKERS, "brightness", lambda _name, *, image_size: Brightness())
    assert isinstance(teacher_named("brightness", image_size=SIZE, channels=CHANNELS), Brightness)
    with pytest.raises(ConfigError, match="brightness in the plain stream's place has 3 channels"):
        Stlm(ARCHITECTURES["stlm-tiny"], Design(plain_stream="brightness"), image_size=SIZE)
