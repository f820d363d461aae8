"""Any convolutional or hierarchical backbone of timm as a teacher: its features at strides 8 and 16."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stlm_edge.errors import ConfigError, DownloadError, WeightsError, cut
from stlm_edge.memory import ran_out
from stlm_edge.network.decoder import Features
from stlm_edge.network.design import PUBLISHED_WEIGHTS, TIMM, Layers
from stlm_edge.network.teachers.base import Maps, Teacher, Weights, settle_norms
from stlm_edge.network.teachers.hub import published_file
from stlm_edge.network.teachers.packages import package_of, packaged_tensors
from stlm_edge.network.weights import locate, read_tensors
from stlm_edge.spec import ModelSpec

logger = logging.getLogger(__name__)

STRIDES = (8, 16)
AT_ONCE = 4
"""Pictures in one pass of `settle`."""
SMALLEST_DEVIATION = 1e-3
"""Of a channel: one that says the same everywhere stays without influence."""
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
        self.name = name
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

    def load(self, weights: Weights) -> str:
        """Take timm's published weights, those of a package or of a file; see `Teacher.load`."""
        package = package_of(self.name) if weights == PUBLISHED_WEIGHTS else None
        path = None if package is None else package.find()
        if package is not None and path is not None:
            tensors = packaged_tensors(path, timm.create_model(self.name, pretrained=False))
            found = f"{path}, licence {package.licence}"
        elif weights == PUBLISHED_WEIGHTS:
            path, licence = self._published()
            tensors, found = read_tensors(path), f"{path}, licence {licence or 'unknown to timm'}"
        else:
            tensors, found = read_tensors(locate(weights)), weights
        self._take(tensors, found)
        self.has_weights = True
        return found

    @torch.no_grad()
    def settle(self, pixels: Tensor) -> None:
        """Find the main components of what the backbone sees on good pictures; see `Teacher.settle`."""
        try:
            if not self.has_weights:
                settle_norms(self.encoder, pixels[: Teacher.settling_images] * self.scale + self.offset)
            mean, deviation, correlation = _statistics(
                _together(*self.maps(some)) for some in torch.split(pixels, AT_ONCE)
            )
        except (AssertionError, RuntimeError) as error:
            if ran_out(error):
                raise
            size = " x ".join(map(str, pixels.shape[2:]))
            raise ConfigError(
                f"{TIMM}{self.name} cannot take pictures of {size} ({_reason(error)}); give another --image-size, or "
                "another backbone"
            ) from None
        if not torch.isfinite(correlation).all():
            raise ConfigError(f"{TIMM}{self.name} gives no finite features of these pictures; take other weights")
        _, vectors = torch.linalg.eigh(correlation)
        main = vectors.flip(1)[:, : self.channels].T
        main = main * main.gather(1, main.abs().argmax(dim=1, keepdim=True)).sign()  # of either sign it is as good
        self.project.weight.zero_()
        self.project.weight[: len(main), :, 0, 0] = main / deviation
        assert self.project.bias is not None
        self.project.bias.zero_()
        self.project.bias[: len(main)] = -(main / deviation) @ mean

    def _published(self) -> tuple[Path, str]:
        try:
            return published_file(self.name)
        except DownloadError as error:
            package = package_of(self.name)
            if package is None:
                raise
            raise DownloadError(f"{error}; or pip install {package.name}==0.1.0, which brings them") from None

    def _take(self, tensors: dict[str, Tensor], found: str) -> None:
        """Load a file of the whole network by timm's own way, which knows other names that it may have.

        For the features alone timm is lenient, and what is missing would stay random. So the whole network takes them
        first; the classifier, which nobody asks, takes what it has already.
        """
        whole = timm.create_model(self.name, pretrained=False)
        own, tensors = whole.state_dict(), dict(tensors)
        classifiers = whole.pretrained_cfg.get("classifier") or ()
        for part in (classifiers,) if isinstance(classifiers, str) else classifiers:
            for name in (f"{part}.weight", f"{part}.bias"):
                tensors.pop(name, None)
                tensors.update({name: own[name]} if name in own else {})
        try:
            given = {"state_dict": tensors, "label_offset": 0}
            own = timm.create_model(self.name, pretrained=True, pretrained_cfg_overlay=given).state_dict()
        except Exception as error:  # files of others fail in any way in the code that renames their tensors
            if ran_out(error):
                raise
            raise WeightsError(
                f"{found} does not fit {TIMM}{self.name} ({_reason(error)}); give the file that belongs to it"
            ) from None
        names = self.encoder.state_dict().keys()
        if names <= own.keys():
            self.encoder.load_state_dict({name: own[name] for name in names})
        else:  # where it calls its stages otherwise than the whole network does
            given = {"state_dict": own, "label_offset": 0}
            self.encoder = _features(self.name, pretrained=True, pretrained_cfg_overlay=given)
            self.encoder.requires_grad_(False).eval()


def _features(name: str, **weights: Any) -> Any:
    """timm's network up to stride 16, giving its features at both strides."""
    if ":" in name or "/" in name or not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.partition('.')[0][:6]}*")[:3])
        hint = f" such as {near}" if near else ""
        raise ConfigError(f"timm {timm.__version__} knows no backbone {name!r}; name one of timm.list_models(){hint}")
    try:
        network: Any = timm.create_model(name, pretrained=False, features_only=True)
        strides = network.feature_info.reduction()
    except (RuntimeError, AttributeError, AssertionError) as error:
        raise ConfigError(f"{TIMM}{name} gives no features of its stages ({_reason(error)}); {_REMEDY}") from None
    if not set(STRIDES) <= set(strides):
        found = ", ".join(map(str, strides))
        raise ConfigError(f"{TIMM}{name} has features at strides {found}, expected 8 and 16 among them; {_REMEDY}")
    # Of several at one stride the last one sees most.
    indices = [len(strides) - 1 - strides[::-1].index(stride) for stride in STRIDES]
    settings: dict[str, Any] = {"pretrained": False, "out_indices": indices} | weights
    return timm.create_model(name, features_only=True, **settings)


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


def _reason(error: Exception) -> str:
    return cut(" ".join(str(error).split()) or type(error).__name__, 200)
