"""What a teacher on a backbone of timm makes of pictures, and which backbones are none."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from stlm_edge.errors import ConfigError
from stlm_edge.network.teachers import teacher_named
from stlm_edge.spec import ModelSpec
from tests.network.teachers.small import CHANNELS, SIZE, SMALL, backbone, pixels


@pytest.mark.parametrize("name", [SMALL, "test_efficientnet", "test_convnext"])
def test_backbone_gives_maps_at_strides_8_and_16_and_layers_of_the_wanted_width(name: str) -> None:
    teacher = backbone(name)
    teacher.settle(pixels())
    fine, coarse = teacher.maps(pixels())
    assert (fine.shape[1], coarse.shape[1]) == teacher.map_channels
    assert (fine.shape[2:], coarse.shape[2:]) == ((8, 12), (4, 6))
    assert [layer.shape for layer in teacher(pixels())] == [(4, CHANNELS, 4, 6)] * 2
    assert len(teacher(pixels(), "l1")) == len(teacher(pixels(), "l2")) == 1
    for layer, other in zip(teacher(pixels()), teacher.features_of((fine, coarse)), strict=True):
        assert torch.equal(layer, other)


def test_backbone_with_channels_last_gives_the_same_shapes() -> None:
    teacher = backbone("test_mambaout")
    teacher.settle(pixels())
    fine, coarse = teacher.maps(pixels())
    assert (fine.shape, coarse.shape) == ((4, 32, 8, 12), (4, 48, 4, 6))


def test_backbone_sees_pixels_normalised_as_timm_says() -> None:
    teacher = backbone("tf_efficientnet_lite0")
    spec = ModelSpec("", "", SIZE, SIZE, "")
    rgb = torch.rand(1, 3, 4, 4) * 255
    std, mean = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (spec.pixel_std, spec.pixel_mean))
    ours = (rgb - mean) / std
    assert torch.allclose(ours * teacher.scale + teacher.offset, (rgb / 255 - 0.5) / 0.5, atol=1e-6)


def test_settled_layers_are_uncorrelated_main_components_of_the_good_pictures() -> None:
    teacher, seen = backbone(channels=16), pixels(8)
    teacher.settle(seen)
    rows = teacher(seen, "l1")[0].double().permute(0, 2, 3, 1).flatten(0, 2)
    covariance = rows.T @ rows / len(rows)
    variances = covariance.diagonal()
    assert rows.mean(dim=0).abs().max() < 1e-3
    assert (variances[:-1] >= variances[1:] - 1e-6).all()
    assert variances[0] > 2 * variances[-1]
    assert (covariance - torch.diag(variances)).abs().max() < 1e-3 * variances[0]


def test_narrow_backbone_leaves_channels_that_it_cannot_fill_zero() -> None:
    teacher = backbone("test_efficientnet", channels=256)
    teacher.settle(pixels())
    filled = 2 * teacher.map_channels[0] + teacher.map_channels[1]
    layer = teacher(pixels(), "l1")[0]
    assert layer.shape[1] == 256
    assert layer[:, filled:].abs().max() == 0
    assert layer[:, 0].std() > 0.1


def test_what_was_settled_is_in_the_state() -> None:
    teacher, other = backbone(), backbone()
    teacher.settle(pixels())
    other.load_state_dict(teacher.state_dict())
    assert torch.equal(teacher(pixels(), "l1")[0], other(pixels(), "l1")[0])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm:nonsense", r"knows no backbone 'nonsense'; name one of timm\.list_models\(\)"),
        ("timm:hf-hub:someone/network", "knows no backbone"),
        ("timm:", "teacher is 'timm:', expected one of sam_vit_h, .* or timm:NAME"),
        ("resnet18", "teacher is 'resnet18', expected one of sam_vit_h, .* or timm:NAME"),
        ("timm:test_vit", r"has features at strides 16, 16.*, expected 8 and 16 among them; take a convolutional"),
    ],
)
def test_name_that_is_no_teacher_is_refused_in_one_line(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        teacher_named(name, image_size=SIZE, channels=CHANNELS)
    assert "\n" not in str(caught.value)


def test_pictures_of_a_size_that_a_backbone_cannot_take_are_refused() -> None:
    teacher = backbone("test_maxvit")
    with pytest.raises(ConfigError, match=r"cannot take pictures of 64 x 96 .*; give another --image-size"):
        teacher.settle(pixels())


def test_backbone_whose_record_tells_of_other_strides_is_refused() -> None:
    """Some that timm calls so have features at other strides than its record says."""
    teacher = backbone("dla46_c")
    with pytest.raises(ConfigError, match=r"has features of \(channels, height, width\) \[\(64, 16, 24\)"):
        teacher.settle(pixels())


def one_colour(count: int) -> torch.Tensor:
    return torch.full((count, 3, *SIZE), 0.3)


@pytest.mark.parametrize("seen", [pixels(1), one_colour(1), one_colour(3)], ids=["one", "one colour", "three of one"])
def test_few_or_empty_pictures_settle_the_same_every_time(seen: torch.Tensor) -> None:
    teacher, other = backbone(channels=256), backbone(channels=256)
    for one in (teacher, other):
        one.origin = "a file"  # or its batch normalisations would be settled too
        one.settle(seen)
    assert all(
        torch.equal(*pair) for pair in zip(teacher.state_dict().values(), other.state_dict().values(), strict=True)
    )
    filled = teacher.project.weight.flatten(1).any(dim=1).sum()
    cells = len(seen) * (SIZE[0] // 16) * (SIZE[1] // 16)
    assert filled < cells  # directions in which nothing varies would be any
    for layer in teacher(pixels(2, seed=3)):
        assert layer.isfinite().all()
        assert not layer[:, filled:].any()


def test_sign_that_the_solver_gives_a_component_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    solve, teacher, other = torch.linalg.eigh, backbone(), backbone()
    teacher.settle(pixels(8))
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: (solve(matrix)[0], -solve(matrix)[1]))
    other.settle(pixels(8))
    assert teacher.project.weight.any()
    assert torch.equal(teacher.project.weight, other.project.weight)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv3_small_050", SMALL])
def test_stages_behind_stride_16_are_left_out_and_answers_stay(name: str) -> None:
    """timm itself keeps them in EfficientNet and MobileNet: 3.0 M parameters instead of 0.7 M in each checkpoint."""
    ours: Any = backbone(name).encoder
    theirs = timm.create_model(name, features_only=True, out_indices=ours.feature_info.out_indices).eval()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    with torch.no_grad():
        for mine, other in zip(ours(pixels(1)), theirs(pixels(1)), strict=True):
            assert torch.equal(mine, other)
    with torch.enable_grad():
        ours.requires_grad_(True)
        sum(maps.square().sum() for maps in ours(pixels(1))).backward()
    assert [key for key, parameter in ours.named_parameters() if parameter.grad is None] == []
