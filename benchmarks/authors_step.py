"""A training step in the manner of the authors' published loop, to compare with.

Everything in float32; the teacher is asked about both versions of each picture; its decoder and that of the streams
take one picture at a time. What it computes is the same.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.authors_way import decode_each
from stlm_edge.network.comparison import StreamFeatures
from stlm_edge.network.inference import prepare
from stlm_edge.network.teacher import SamTeacher, Teacher
from stlm_edge.spec import ModelSpec
from train.data import Batch
from train.objective import distillation_loss
from train.training import Training

Mark = Callable[[str], None]
"""Called with a phase's name when the phase has ended."""


def step(training: Training, teacher: Teacher, batch: Batch, *, spec: ModelSpec, mark: Mark) -> float:
    """One step; returns the total loss."""
    objective = training.objective
    batch = batch.to(training.device)
    pseudo, clean = prepare(batch.pseudo, spec), prepare(batch.clean, spec)
    assert isinstance(teacher, SamTeacher)  # the authors know no other
    with torch.no_grad():
        taught_plain = decode_each(teacher.decoder, teacher.encoder(pseudo))
        taught_denoising = decode_each(teacher.decoder, teacher.encoder(clean))
    mark("teacher")
    network = objective.network
    assert network.decoder is not None
    features = StreamFeatures(
        plain=decode_each(network.decoder, network.plain(pseudo)),
        denoising=decode_each(network.decoder, network.denoising(pseudo)),
    )
    total = (
        distillation_loss(objective.projections(features.plain), taught_plain)
        + distillation_loss(objective.projections(features.denoising), taught_denoising)
        + objective.segmentation(network.aggregate(features), batch.mask)
    )
    mark("forward")
    total.backward()  # type: ignore[no-untyped-call]
    mark("backward")
    for optimiser in training.optimisers:
        optimiser.step()
        optimiser.zero_grad()
    loss = float(total.detach())
    mark("optimiser")
    return loss
