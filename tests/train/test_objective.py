"""Losses and their gradients against the golden fixtures (section 3)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from train.objective import bce_dice_loss, cosine_distance, distillation_loss, focal_loss, l1_loss, shrink_mask

GOLDEN = Path(__file__).parents[1] / "golden"
ARRAYS = dict(np.load(GOLDEN / "losses.npz"))
EXPECTED: dict[str, Any] = json.loads((GOLDEN / "expected.json").read_text())["losses"]["float64"]

PRECISIONS = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-6)], ids=["float64", "float32"]
)
STREAMS = ("plain", "denoising")


def tensor(name: str, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.from_numpy(ARRAYS[name]).to(dtype)


def pair(role: str, stream: str, dtype: torch.dtype) -> list[Tensor]:
    return [tensor(f"{role}_{stream}_{layer}", dtype) for layer in (1, 2)]


@PRECISIONS
@pytest.mark.parametrize("stream", STREAMS)
def test_distillation_loss_meets_the_golden_value(stream: str, dtype: torch.dtype, tolerance: float) -> None:
    student, teacher = pair("student", stream, dtype), pair("teacher", stream, dtype)
    for layer in (1, 2):
        distance = cosine_distance(student[layer - 1], teacher[layer - 1])
        assert (distance - tensor(f"distance_{stream}_{layer}", dtype)).abs().max() < tolerance
        assert abs(distance.mean().item() - EXPECTED[f"{stream}_layer{layer}_mean"]) < tolerance
    assert abs(distillation_loss(student, teacher).item() - EXPECTED[f"loss_{stream}"]) < tolerance


@PRECISIONS
def test_segmentation_losses_meet_the_golden_values(dtype: torch.dtype, tolerance: float) -> None:
    prediction, target = tensor("prediction", dtype), tensor("mask_small", dtype)
    assert abs(focal_loss(prediction, target).item() - EXPECTED["focal"]) < tolerance
    assert abs(l1_loss(prediction, target).item() - EXPECTED["l1"]) < tolerance


@PRECISIONS
def test_total_and_its_gradients_meet_the_golden_values(dtype: torch.dtype, tolerance: float) -> None:
    students = {stream: [layer.requires_grad_() for layer in pair("student", stream, dtype)] for stream in STREAMS}
    prediction = tensor("prediction", dtype).requires_grad_()
    target = shrink_mask(tensor("mask_full", dtype), (6, 6))
    total = focal_loss(prediction, target) + l1_loss(prediction, target)
    for stream in STREAMS:
        total = total + distillation_loss(students[stream], pair("teacher", stream, dtype))
    assert abs(total.item() - EXPECTED["total"]) < tolerance
    total.backward()
    assert (prediction.grad - tensor("grad_prediction", dtype)).abs().max() < tolerance
    for stream in STREAMS:
        for layer in (1, 2):
            difference = students[stream][layer - 1].grad - tensor(f"grad_student_{stream}_{layer}", dtype)
            assert difference.abs().max() < tolerance


@PRECISIONS
def test_mask_shrinks_to_the_golden_target(dtype: torch.dtype, tolerance: float) -> None:
    small = shrink_mask(tensor("mask_full", dtype), (6, 6))
    assert small.dtype == dtype
    assert torch.equal(small, tensor("mask_small", dtype))


def test_epsilon_is_added_to_the_norm() -> None:
    distance = cosine_distance(tensor("edge_student"), tensor("edge_teacher"))
    assert (distance - tensor("edge_distance")).abs().max() < 1e-10
    single = cosine_distance(tensor("edge_student", torch.float32), tensor("edge_teacher", torch.float32))
    assert (single - tensor("edge_distance", torch.float32)).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_zero_student_has_gradient_zero(dtype: torch.dtype) -> None:
    student = torch.zeros(1, 8, 2, 2, dtype=dtype, requires_grad=True)
    distance = cosine_distance(student, torch.ones(1, 8, 2, 2, dtype=dtype))
    assert torch.equal(distance, torch.ones_like(distance))
    distance.mean().backward()
    assert torch.equal(student.grad, torch.zeros_like(student))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    features = torch.full((1, 8, 1, 1), 1e-4, dtype=dtype)  # the squares would be 0 in float16
    distance = cosine_distance(features, features)
    assert distance.dtype == torch.float32
    assert distance.abs().max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_focal_loss_is_clamped_where_the_prediction_is_certain(dtype: torch.dtype) -> None:
    predictions, targets = tensor("focal_edge_prediction", dtype), tensor("focal_edge_target", dtype)
    elements = [focal_loss(p, t).item() for p, t in zip(predictions, targets, strict=True)]
    np.testing.assert_allclose(elements, ARRAYS["focal_edge_elementwise"], rtol=1e-5, atol=1e-30)


def test_focal_loss_has_finite_gradients_where_the_prediction_is_certain() -> None:
    prediction = torch.tensor([0.0, 1.0, 0.0, 1.0], requires_grad=True)
    focal_loss(prediction, torch.tensor([0.0, 1.0, 1.0, 0.0])).backward()
    assert prediction.grad.isfinite().all()


def test_bce_dice_loss_falls_from_wrong_to_right() -> None:
    target = torch.tensor([0.0, 0.0, 1.0, 1.0])
    right, unsure, wrong = (bce_dice_loss(sign * (2 * target - 1), target).item() for sign in (50.0, 0.0, -50.0))
    assert right < 1e-6 < unsure < wrong


def test_bce_dice_loss_of_a_batch_without_defects_vanishes_for_an_empty_prediction() -> None:
    assert bce_dice_loss(torch.full((2, 1, 4, 4), -60.0), torch.zeros(2, 1, 4, 4)).item() < 1e-6
