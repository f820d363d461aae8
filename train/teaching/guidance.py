"""What the teacher tells a training, at the lowest cost: batched, in half precision, and nothing twice."""

from __future__ import annotations

import hashlib
import logging
from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import Tensor, nn

from stlm_edge.errors import ConfigError
from stlm_edge.network.decoder import Features
from stlm_edge.network.design import Layers
from stlm_edge.network.inference import prepare
from stlm_edge.network.teachers.base import Teacher
from stlm_edge.network.weights import fingerprint
from stlm_edge.spec import ModelSpec
from train.data import Batch
from train.teaching.feature_cache import FeatureCache, default_folder
from train.teaching.teacher import Taught

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16", "fp16"]

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Mixed precision within the block; none for fp32."""
    return torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32")


def lower(teacher: Teacher, precision: Precision) -> None:
    """Bring the weights of linear layers and convolutions to half precision, in place, unless it is to stay in fp32."""
    for module in teacher.modules() if precision != "fp32" else ():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            module.to(DTYPES[precision])


class Guidance:
    """Asks the frozen teacher about batches.

    The authors' loop asks it twice for each picture. Here a picture without a pseudo anomaly is asked about once, since
    both streams learn the same from it, and a clean picture that comes back unchanged is not asked about again: its
    features are kept on disk. Half precision takes the weights of linear layers and convolutions along; norms, softmax
    and positions stay in float32.

    Args:
        layers: which features are distilled.
        cache: None asks every time.
    """

    def __init__(
        self,
        teacher: Teacher,
        *,
        spec: ModelSpec,
        layers: Layers,
        precision: Precision,
        compiled: bool,
        cache: FeatureCache | None,
    ) -> None:
        self.teacher = teacher
        self.spec = spec
        self.layers = layers
        self.precision = precision
        self.cache = cache
        self._device = next(teacher.parameters()).device
        lower(teacher, precision)
        teacher.to(memory_format=torch.channels_last)
        if compiled:
            teacher.encoder = torch.compile(teacher.encoder, dynamic=False)  # type: ignore[assignment]

    def __call__(self, batch: Batch) -> Taught:
        """What the teacher says about a batch, on the teacher's device."""
        clean = [self._remembered(key) for key in batch.keys]
        missing = [index for index, features in enumerate(clean) if features is None]
        # Two calls and not one: so what is computed does not depend on what is remembered, down to the last bit.
        for index, features in zip(missing, self._ask(batch.clean, missing), strict=True):
            clean[index] = features
            key = batch.keys[index]
            if key is not None and self.cache is not None:
                self.cache.put(key, features)
        changed = [index for index, is_changed in enumerate(batch.changed) if is_changed]
        pseudo = dict(zip(changed, self._ask(batch.pseudo, changed), strict=True))
        denoising = [features for features in clean if features is not None]
        plain = [pseudo.get(index, features) for index, features in enumerate(denoising)]
        return Taught(plain=_stacked(plain), denoising=_stacked(denoising))

    def _remembered(self, key: str | None) -> Features | None:
        return None if key is None or self.cache is None else self.cache.get(key, self._device)

    @torch.no_grad()
    def _ask(self, images: Tensor, indices: list[int]) -> list[Features]:
        """The features of some of the pictures, one by one, each (C, h, w)."""
        if not indices:
            return []
        pixels = prepare(images[indices].to(self._device), self.spec)
        with autocast(self.precision, self._device):
            layers = self.teacher(pixels.contiguous(memory_format=torch.channels_last), self.layers)
        layers = tuple(layer.to(DTYPES[self.precision]) for layer in layers)
        return [tuple(layer[number] for layer in layers) for number in range(len(indices))]


def settled(precision: Literal["auto", "fp32", "bf16", "fp16"], device: torch.device) -> Precision:
    """The teacher's precision on a device. Raises `ConfigError` for one that the device does not have."""
    gpu = device.type == "cuda"
    if precision == "auto":
        return "bf16" if gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if precision == "fp16" and not gpu:
        raise ConfigError("teacher_precision is fp16 on a CPU, expected fp32 or bf16; fp16 is for GPUs")
    return precision


def make_guidance(
    teacher: Teacher,
    *,
    spec: ModelSpec,
    layers: Layers,
    precision: Literal["auto", "fp32", "bf16", "fp16"],
    compile_teacher: Literal["auto", "on", "off"],
    cache_gb: float,
) -> Guidance:
    """Guidance by a teacher that stands on its device already, with `auto` settled for that device.

    Raises:
        ConfigError: for a precision that the device does not have.
    """
    device = next(teacher.parameters()).device
    precision = settled(precision, device)
    compiled = compile_teacher == "on" or (compile_teacher == "auto" and device.type == "cuda")
    cache = None
    if cache_gb > 0:
        digest = hashlib.sha256(fingerprint(teacher.state_dict()).encode())
        digest.update(
            f"{type(teacher).__name__} {teacher.name} {precision} {layers} {spec.pixel_mean} {spec.pixel_std}".encode()
        )
        cache = FeatureCache(default_folder(), digest.hexdigest()[:32], limit_bytes=round(cache_gb * 1e9))
    logger.info(
        "teacher in %s%s, %s",
        precision,
        ", compiled" if compiled else "",
        "every time asked anew" if cache is None else "features of unchanged pictures kept on disk",
    )
    return Guidance(teacher, spec=spec, layers=layers, precision=precision, compiled=compiled, cache=cache)


def _stacked(pictures: list[Features]) -> Features:
    return tuple(torch.stack(layer) for layer in zip(*pictures, strict=True))
