from __future__ import annotations

import pytest
import torch

from stlm_edge.errors import WeightsError
from stlm_edge.network.inference import prepare
from stlm_edge.network.teachers.gabor import GaborTeacher
from stlm_edge.spec import ModelSpec
from train.objective import distillation_loss
from train.teaching.teacher import build_teacher

SPEC = ModelSpec("ground", "stlm-tiny", (128, 128), (128, 128), "")


def stripes(*, period: float, across: bool = False, light: float = 1.0) -> torch.Tensor:
    """(1, 128, 128, 3) uint8."""
    wave = light * (100 + 40 * torch.sin(2 * torch.pi * torch.arange(128) / period))
    grey = wave[:, None].expand(128, 128) if across else wave[None, :].expand(128, 128)
    return grey.round().to(torch.uint8)[None, :, :, None].expand(1, 128, 128, 3)


@pytest.fixture
def teacher() -> GaborTeacher:
    teacher = build_teacher("gabor", weights="random", image_size=(128, 128))
    assert isinstance(teacher, GaborTeacher)
    pictures = [stripes(period=period, across=across) for period in (4, 9, 20) for across in (False, True)]
    teacher.settle(prepare(torch.cat(pictures), SPEC))
    return teacher


def taught(teacher, image):
    return teacher(prepare(image, SPEC))


def test_layers_have_a_cell_for_each_sixteen_pixels_and_learn_nothing(teacher):
    layers = taught(teacher, stripes(period=8))
    assert [tuple(layer.shape) for layer in layers] == [(1, teacher.channels, 8, 8)] * 2
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not any(layer.requires_grad for layer in layers)


def test_direction_and_period_of_the_grain_are_told_apart(teacher):
    along = taught(teacher, stripes(period=8))
    for other in (stripes(period=8, across=True), stripes(period=20)):
        assert distillation_loss(along, taught(teacher, other)) > 0.5


def test_light_hardly_matters(teacher):
    bright, dim = (taught(teacher, stripes(period=8, light=light)) for light in (1.0, 0.5))
    assert distillation_loss(bright, dim) < 0.1


def test_settled_features_are_standardised():
    pictures = torch.cat([stripes(period=period) for period in (4, 7, 12, 25)])
    teacher = GaborTeacher((128, 128))
    teacher.settle(prepare(pictures, SPEC))
    layer1, _ = taught(teacher, pictures)
    assert layer1.mean(dim=(0, 2, 3)).abs().max() < 1e-3
    deviation = layer1.std(dim=(0, 2, 3))
    assert deviation.max() < 1.01


def test_black_and_flat_pictures_give_numbers(teacher):
    for level in (0, 128, 255):
        flat = torch.full((1, 128, 128, 3), level, dtype=torch.uint8)
        assert all(layer.isfinite().all() for layer in taught(teacher, flat))


def test_filters_need_no_weights_and_a_file_of_them_is_refused():
    first, second = (build_teacher("gabor", weights=word, image_size=(128, 128)) for word in ("published", "random"))
    assert torch.equal(first.encoder.bank, second.encoder.bank)
    with pytest.raises(WeightsError, match="gabor, which has none"):
        build_teacher("gabor", weights="sam.pth", image_size=(128, 128))
