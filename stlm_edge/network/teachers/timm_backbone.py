"""Any convolutional or hierarchical backbone of timm as a teacher: its features at strides 8 and 16."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stlm_edge.errors import ConfigError, WeightsError, shortly
from stlm_edge.files import sha256
from stlm_edge.memory import ran_out
from stlm_edge.network.decoder import Features
from stlm_edge.network.design import PUBLISHED_WEIGHTS, TIMM, Layers
from stlm_edge.network.teachers.base import Maps, Teacher, Weights, settle_norms
from stlm_edge.network.teachers.packages import package_of, packaged_tensors
from stlm_edge.network.teachers.timm_weights import address_of, load_features, published_file
from stlm_edge.network.weights import read_tensors
from stlm_edge.spec import ModelSpec

STRIDES = (8, 16)
AT_ONCE = 4
"""Pictures in one pass of `settle`."""
SMALLEST_DEVIATION = 1e-3
"""Of a channel: one that says the same everywhere stays without influence."""
LEAST_VARIANCE = 1e-9
"""Of a component, as a share of all channels' together."""
LEVELS = 255.0


class TimmTeacher(Teacher):
    """A frozen backbone, and a projection of its features to L1 and L2.

    L1 are the main components of what the backbone sees in a cell of 16 x 16 pixels: mean and highest value of stride
    8, and stride 16, each channel standardised; `settle` finds them on good pictures. L2 is the mean of L1 over 3 x 3
    cells. All of it are tensors of the teacher, so that a checkpoint carries them.

    Args:
        name: timm's, such as `tf_efficientnet_lite0` or `resnet18.a1_in1k`.
        channels: of L1 and L2; a backbone with fewer leaves the others 0.
    Raises:
        ConfigError: if timm does not know it, or it has no features at strides 8 and 16.
    """

    settling_images = 64
    scale: Tensor
    offset: Tensor

    def __init__(self, name: str, *, channels: int) -> None:
        encoder = _features(name)
        super().__init__(encoder, channels=channels)
        self.name = f"{TIMM}{name}"
        self.backbone = name
        fine, coarse = encoder.feature_info.channels()
        self.map_channels = (fine, coarse)
        self._channels_last = getattr(encoder, "output_fmt", "NCHW") == "NHWC"
        self.project = nn.Conv2d(2 * fine + coarse, channels, 1).requires_grad_(False)
        scale, offset = _other_normalisation(encoder.pretrained_cfg)
        self.register_buffer("scale", scale)
        self.register_buffer("offset", offset)

    @torch.no_grad()
    def forward(self, pixels: Tensor, layers: Layers = "l1+l2") -> Features:
        """See `Teacher.forward`."""
        return self.features_of(self.maps(pixels), layers)

    @torch.no_grad()
    def maps(self, pixels: Tensor) -> Maps:
        """See `Teacher.maps`."""
        fine, coarse = self.encoder(pixels * self.scale + self.offset)
        if self._channels_last:
            return fine.permute(0, 3, 1, 2), coarse.permute(0, 3, 1, 2)
        return fine, coarse

    @torch.no_grad()
    def features_of(self, maps: Maps, layers: Layers = "l1+l2") -> Features:
        """See `Teacher.features_of`."""
        layer1 = self.project(_together(*maps))
        layer2 = F.avg_pool2d(layer1, 3, stride=1, padding=1, count_include_pad=False)
        return {"l1": (layer1,), "l2": (layer2,), "l1+l2": (layer1, layer2)}[layers]

    def load(self, weights: Weights) -> None:
        """Take timm's published weights, those of a package or of a file; see `Teacher.load`."""
        package = package_of(self.backbone) if weights == PUBLISHED_WEIGHTS else None
        path = None if package is None else package.find()
        if path is not None:
            tensors = packaged_tensors(path, timm.create_model(self.backbone, pretrained=False))
            origin = f"{path.name} of the package {package}"
        elif weights == PUBLISHED_WEIGHTS:
            path, licence = published_file(self.backbone)
            tensors, origin = read_tensors(path), f"{path}, licence {licence}"
        else:
            path = Path(weights)
            if not path.is_file():
                raise WeightsError(f"{path} is no file; give --teacher-weights FILE, published or random")
            tensors, origin = read_tensors(path), f"{path} (SHA-256 {sha256(path)})"
        load_features(self.encoder, self.backbone, tensors, found=str(path))
        self.origin = origin

    def to_fetch(self) -> str | None:
        """See `Teacher.to_fetch`."""
        package = package_of(self.backbone)
        return None if package is not None and package.find() is not None else address_of(self.backbone)

    @torch.no_grad()
    def settle(self, pixels: Tensor) -> None:
        """Find the main components of what the backbone sees on good pictures; see `Teacher.settle`."""
        with self._taking(pixels):
            if not self.has_weights:
                settle_norms(self.encoder, pixels[: Teacher.settling_images] * self.scale + self.offset)
            self._check_sizes(pixels[:1])
            mean, deviation, correlation = _statistics(
                _together(*self.maps(some)) for some in torch.split(pixels, AT_ONCE)
            )
        if not torch.isfinite(correlation).all():
            raise ConfigError(f"{self.name} gives no finite features of these pictures; take other weights")
        values, vectors = torch.linalg.eigh(correlation)
        # What these pictures do not vary in has no order and no direction: it would be another one on each machine.
        varied = values.flip(0)[: self.channels] > LEAST_VARIANCE * len(values)
        main = vectors.flip(1)[:, : self.channels].T * varied[:, None]
        main = main * main.gather(1, main.abs().argmax(dim=1, keepdim=True)).sign()  # of either sign it is as good
        self.project.weight.zero_()
        self.project.weight[: len(main), :, 0, 0] = main / deviation
        assert self.project.bias is not None
        self.project.bias.zero_()
        self.project.bias[: len(main)] = -(main / deviation) @ mean

    def require_size(self, pixels: Tensor) -> None:
        """See `Teacher.require_size`."""
        with self._taking(pixels):
            self._check_sizes(pixels[:1])

    @contextmanager
    def _taking(self, pixels: Tensor) -> Iterator[None]:
        """What the backbone raises of a size that it cannot take becomes a `ConfigError`."""
        try:
            yield
        except (AssertionError, RuntimeError) as error:
            if ran_out(error):
                raise
            size = " x ".join(map(str, pixels.shape[2:]))
            raise ConfigError(
                f"{self.name} cannot take pictures of {size} ({shortly(error)}); give another --image-size, or "
                "another backbone"
            ) from None

    def _check_sizes(self, pixels: Tensor) -> None:
        """Raises `ConfigError` where timm's record tells of other strides or channels than the features have."""
        expected = [
            (channels, *(side // stride for side in pixels.shape[2:]))
            for channels, stride in zip(self.map_channels or (), STRIDES, strict=True)
        ]
        found = [tuple(maps.shape[1:]) for maps in self.maps(pixels)]
        if found != expected:
            raise ConfigError(
                f"{self.name} has features of (channels, height, width) {found} for pictures of "
                f"{pixels.shape[2]} x {pixels.shape[3]}, expected {expected} at strides 8 and 16; {_REMEDY}"
            )


def _features(name: str) -> Any:
    """timm's network up to stride 16, giving its features at both strides."""
    if ":" in name or "/" in name or not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.partition('.')[0][:6]}*")[:3])
        hint = f" such as {near}" if near else ""
        raise ConfigError(f"timm {timm.__version__} knows no backbone {name!r}; name one of timm.list_models(){hint}")
    architecture, _, tag = name.partition(".")
    if tag and name not in (known := timm.list_pretrained(f"{architecture}.*")):
        raise ConfigError(
            f"timm has no weights {tag!r} of {architecture}, expected {', '.join(known) or 'no tag'}; or name "
            f"{TIMM}{architecture}"
        )
    try:
        network: Any = timm.create_model(name, pretrained=False, features_only=True)
        strides = network.feature_info.reduction()
    except (RuntimeError, AttributeError, AssertionError) as error:
        raise ConfigError(f"{TIMM}{name} gives no features of its stages ({shortly(error)}); {_REMEDY}") from None
    if not set(STRIDES) <= set(strides):
        found = ", ".join(map(str, strides))
        raise ConfigError(f"{TIMM}{name} has features at strides {found}, expected 8 and 16 among them; {_REMEDY}")
    # Of several at one stride the last one sees most.
    indices = [len(strides) - 1 - strides[::-1].index(stride) for stride in STRIDES]
    return _without_later_stages(timm.create_model(name, pretrained=False, features_only=True, out_indices=indices))


def _without_later_stages(network: Any) -> Any:
    """timm leaves out what lies behind the last features that are asked for, but not of EfficientNet and MobileNet.

    These would keep it, two thirds of their parameters, in each checkpoint, and compute it for nobody.
    """
    blocks, asked_for = getattr(network, "blocks", None), getattr(network, "_stage_out_idx", None)
    if isinstance(blocks, nn.Sequential) and isinstance(asked_for, dict):
        del blocks[max(asked_for) :]
    return network


_REMEDY = "take a convolutional or hierarchical one, such as timm:tf_efficientnet_lite0 or timm:resnet18"


def _other_normalisation(wanted: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """What pixels in SAM's normalisation are multiplied by and then added to, each (1, 3, 1, 1), for timm's."""
    given = ModelSpec("", "", (32, 32), (32, 32), "")
    mean, std = torch.tensor(wanted["mean"]).double(), torch.tensor(wanted["std"]).double()
    scale = torch.tensor(given.pixel_std).double() / (LEVELS * std)
    offset = (torch.tensor(given.pixel_mean).double() / LEVELS - mean) / std
    return scale.float().reshape(1, 3, 1, 1), offset.float().reshape(1, 3, 1, 1)


def _together(fine: Tensor, coarse: Tensor) -> Tensor:
    """Both maps on the grid of stride 16: (N, 2 C1 + C2, h, w)."""
    return torch.cat([F.avg_pool2d(fine, 2), F.max_pool2d(fine, 2), coarse], dim=1)


def _statistics(seen: Iterable[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,), deviation (C,) and correlation (C, C) of all cells of maps (N, C, h, w), in float64 on the CPU."""
    count, total, products = 0, torch.zeros(()), torch.zeros(())
    for maps in seen:
        cells = maps.cpu().double().permute(0, 2, 3, 1).flatten(0, 2)
        count, total, products = count + len(cells), total + cells.sum(dim=0), products + cells.T @ cells
    mean = total / count
    covariance = products / count - mean.outer(mean)
    deviation = covariance.diagonal().clamp_min(0).sqrt().clamp_min(SMALLEST_DEVIATION)
    return mean, deviation, covariance / deviation.outer(deviation)
