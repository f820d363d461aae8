"""Frozen teachers: networks or filters to distil from, or to stand in for the plain stream (table 4)."""

from __future__ import annotations

import logging
from collections.abc import Callable

from stlm_edge.network.design import RANDOM_WEIGHTS, TEACHERS, TIMM, check_teacher
from stlm_edge.network.teachers.base import Teacher, Weights
from stlm_edge.network.teachers.gabor import GaborTeacher
from stlm_edge.network.teachers.sam import sam_teacher
from stlm_edge.network.teachers.timm_backbone import TimmTeacher
from stlm_edge.spec import Size

logger = logging.getLogger(__name__)

_MAKERS: dict[str, Callable[..., Teacher]] = dict.fromkeys(TEACHERS, sam_teacher)
_MAKERS["gabor"] = lambda _name, *, image_size: GaborTeacher(image_size)


def teacher_named(name: str, *, image_size: Size, channels: int) -> Teacher:
    """A teacher as it is without weights, to load a checkpoint or weights into.

    Args:
        name: one of `TEACHERS`, or `timm:NAME`.
        channels: wanted of L1 and L2; only a backbone of timm can choose, the others have what they have.
    Raises:
        ConfigError: for a name that nobody knows, or a backbone that lacks a stride.
    """
    check_teacher("teacher", name)
    if name.startswith(TIMM):
        return TimmTeacher(name.removeprefix(TIMM), channels=channels)
    return _MAKERS[name](name, image_size=image_size)


def give_weights(teacher: Teacher, *, name: str, weights: Weights) -> None:
    """Load weights, or say that there are none. Raises as `Teacher.load`."""
    if weights != RANDOM_WEIGHTS:
        teacher.load(weights)
        logger.info("teacher %s from %s", name, teacher.origin)
    elif teacher.needs_weights:
        logger.warning(
            "NO TEACHER WEIGHTS: distilling from a RANDOM frozen %s. The model learns from pseudo anomalies alone and "
            "will not reach the paper's figures; give --teacher-weights (see 'stlm weights')",
            name,
        )
