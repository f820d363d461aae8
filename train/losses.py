"""The terms of the total loss (paper, equations 3 to 8)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from stlm_edge.network.comparison import NORM_EPSILON
from train.distributed import summed


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus the cosine similarity at every position (equation 3).

    1e-12 is added to each norm, so a zero vector has distance 1. Half precision is computed in float32, where 1e-12
    is not zero. The gradient at an all-zero student is 0 by definition here; the plain formula gives NaN there.

    Args:
        student, teacher: (N, C, H, W).
    Returns:
        (N, 1, H, W) in 0 … 2, float32 or float64.
    """
    similarity = _normalise(student) * _normalise(teacher)
    return 1 - similarity.sum(dim=1, keepdim=True)


def distillation_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Cosine distance, mean over positions and batch, sum over layers (equations 3 and 4).

    Args:
        student, teacher: for each layer (N, C, H, W). Gradients flow wherever they are wanted; the teacher's features
            should want none.
    """
    means = [cosine_distance(ours, theirs).mean() for ours, theirs in zip(student, teacher, strict=True)]
    return torch.stack(means).sum()


def shrink_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring a mask to the size of the prediction: bilinear without anti-aliasing, then 1 from 0.5 on.

    Args:
        mask: (N, 1, H, W) floating point, 0 or 1.
        size: (height, width) wanted.
    Returns:
        (N, 1, height, width) of the same type, 0 or 1.
    """
    small = F.interpolate(mask, size=size, mode="bilinear", align_corners=False)
    return (small >= 0.5).to(mask.dtype)


def any_in_cell(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """As `shrink_mask`, but 1 wherever the cell holds any pixel of the mask; a line thinner than a cell stays."""
    return F.adaptive_max_pool2d(mask, size)


def focal_loss(prediction: Tensor, target: Tensor, *, gamma: float = 4) -> Tensor:
    """Mean of (1 - p)^gamma * -log p, p the probability given to the true class (equation 6).

    The logarithm is clamped at -100, so that a certain and wrong prediction costs 100 and not infinity.

    Args:
        prediction: probabilities, any shape; float32 or float64.
        target: 0 or 1, same shape and type.
    """
    missing = (target - prediction).abs()
    cross_entropy = F.binary_cross_entropy(prediction, target, reduction="none")
    return (missing**gamma * cross_entropy).mean()


def l1_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of |target - prediction| (equation 7, which has a minus sign in print and a plus in the authors' code)."""
    return (target - prediction).abs().mean()


def bce_dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy plus the Dice loss over the whole batch; not the paper's, but quicker to learn from.

    The Dice ratio is that of the global batch where several processes train.

    One pixel is added to both sides of the Dice ratio: a batch without any defect that is predicted so costs nothing.

    Args:
        logits: any shape, before the sigmoid.
        target: 0 or 1, same shape.
    """
    prediction = torch.sigmoid(logits)
    overlap, predicted, wanted = summed(
        torch.stack([(prediction * target).sum(), prediction.sum(), target.sum()])
    ).unbind()
    dice = (2 * overlap + 1) / (predicted + wanted + 1)
    return F.binary_cross_entropy_with_logits(logits, target) + 1 - dice


def _normalise(features: Tensor) -> Tensor:
    """Divide by the norm over channels plus 1e-12; a zero vector stays zero, whatever its gradient would be."""
    features = features if features.dtype == torch.float64 else features.float()
    norm = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features / torch.where(norm > 0, norm + NORM_EPSILON, torch.inf)
