"""A training step and its pictures in the manner of published loops, written down to be measured against.

The step: all in float32; the teacher is asked about both versions of each picture; decoders take one picture at a time.
The pictures: each one and each texture is decoded and resized anew whenever it is drawn, the noise is evaluated pixel
by pixel in double precision, and the blend is computed over the whole picture. What is computed is the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image as PilImage
from torch import Tensor

from benchmarks.network_subjects import decode_each
from stlm_edge.network.comparison import StreamFeatures
from stlm_edge.network.decoder import Features
from stlm_edge.network.inference import prepare
from stlm_edge.network.teachers.base import Teacher
from stlm_edge.network.teachers.sam import SamTeacher
from stlm_edge.spec import ModelSpec, Size
from train.config import TrainConfig
from train.data import Batch
from train.objective import distillation_loss
from train.training import Training


@torch.no_grad()
def ask(teacher: Teacher, spec: ModelSpec, batch: Batch) -> list[Features]:
    """What the teacher says of the pseudo anomalies, and of the pictures without them."""
    pictures = prepare(batch.pseudo, spec), prepare(batch.clean, spec)
    if isinstance(teacher, SamTeacher):
        return [decode_each(teacher.decoder, teacher.encoder(pixels)) for pixels in pictures]
    return [teacher(pixels) for pixels in pictures]


def step(training: Training, batch: Batch, taught: Sequence[Features]) -> float:
    """One step; returns the total loss."""
    objective, network = training.objective, training.objective.network
    assert network.decoder is not None and network.denoising is not None
    pixels = prepare(batch.pseudo, objective.spec)
    streams = [decode_each(network.decoder, stream(pixels)) for stream in (network.plain, network.denoising)]
    total = objective.segmentation(network.aggregate(StreamFeatures(*streams)), batch.mask)
    for features, wanted in zip(streams, taught, strict=True):
        total = total + distillation_loss(objective.projections(features), wanted)
    total.backward()  # type: ignore[no-untyped-call]
    for optimiser in training.optimisers:
        optimiser.step()
        optimiser.zero_grad()
    return float(total.detach())


def batches(pictures: Sequence[Path], textures: Sequence[Path], config: TrainConfig) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures with Perlin pseudo anomalies, (N, H, W, 3) uint8, and their masks (N, H, W), without end."""
    rng, size = np.random.default_rng(config.seed), config.image_size
    while True:
        images, masks = [], []
        for index in rng.permutation(len(pictures))[: config.batch_size]:
            image, mask = _read(pictures[index], size), np.zeros(size)
            if rng.random() < config.anomaly_probability:
                mask, texture = _blob(rng, size), _read(textures[int(rng.integers(len(textures)))], size)
                beta, inside = rng.uniform(0, config.largest_beta), mask[:, :, None]
                image = (1 - inside) * image + (1 - beta) * inside * texture + beta * inside * image
            images.append(image.astype(np.uint8))
            masks.append(mask)
        yield torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(masks)).float()


def _read(path: Path, size: Size) -> Any:
    with PilImage.open(path) as file:
        return np.asarray(file.convert("RGB").resize(size[::-1], PilImage.Resampling.BILINEAR))


def _blob(rng: np.random.Generator, size: Size) -> Any:
    """0 or 1: where turned Perlin noise is above a half."""
    noise = perlin(rng, size, (1 << int(rng.integers(6)), 1 << int(rng.integers(6))))
    turn = cv2.getRotationMatrix2D(((size[1] - 1) / 2, (size[0] - 1) / 2), rng.uniform(-90, 90), 1.0)
    return np.where(cv2.warpAffine(noise, turn, size[::-1]) > 0.5, 1.0, 0.0)


def perlin(rng: np.random.Generator, size: Size, lattice: Size) -> Any:
    """Perlin noise by its definition: at each pixel the fade between the gradients of four lattice points."""
    angles = 2 * math.pi * rng.random((lattice[0] + 1, lattice[1] + 1))
    position = np.mgrid[0 : size[0], 0 : size[1]] * (np.array(lattice) / size)[:, None, None]
    cell = np.floor(position).astype(int)
    y, x = position - cell

    def corner(down: int, right: int) -> Any:
        angle = angles[cell[0] + down, cell[1] + right]
        return np.cos(angle) * (y - down) + np.sin(angle) * (x - right)

    fade_y, fade_x = (t**3 * (t * (t * 6 - 15) + 10) for t in (y, x))
    left = corner(0, 0) + fade_y * (corner(1, 0) - corner(0, 0))
    right = corner(0, 1) + fade_y * (corner(1, 1) - corner(0, 1))
    return math.sqrt(2) * (left + fade_x * (right - left))
