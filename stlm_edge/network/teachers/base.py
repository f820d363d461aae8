"""What a frozen teacher is to a training and to a network whose plain stream it stands in for (table 4)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from stlm_edge.errors import WeightsError
from stlm_edge.network.decoder import Features
from stlm_edge.network.design import RANDOM_WEIGHTS, Layers

Maps = tuple[Tensor, Tensor]
"""Features at strides 8 and 16, see `Teacher.maps`."""

Weights = Literal["published", "random"] | str
"""Of a teacher: those that its authors published, none on purpose, or a file."""


class Teacher(nn.Module, ABC):
    """What is distilled from: a network or filters, frozen; `train()` leaves it in evaluation mode.

    Attributes:
        encoder: what takes the pixels and most of the time.
        channels: of L1 and L2.
        map_channels: of `maps`; None for a teacher that has none.
        settling_images: good pictures that `settle` wants, at most.
        name: one of `TEACHERS`, or `timm:NAME`.
        origin: where its weights are from, for people; `random` until `load` has given it any.
        needs_weights: whether it teaches little without.
    """

    name: str
    map_channels: tuple[int, int] | None = None
    settling_images = 16
    origin: str = RANDOM_WEIGHTS
    needs_weights = True

    def __init__(self, encoder: nn.Module, *, channels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.channels = channels
        self.requires_grad_(False)
        self.eval()

    def train(self, _mode: bool = True) -> Teacher:
        """Stays as it is, whatever the network around it does."""
        return super().train(False)

    @abstractmethod
    def forward(self, pixels: Tensor, layers: Layers = "l1+l2") -> Features:
        """
        Args:
            pixels: (N, 3, H, W), normalised RGB.
        Returns:
            What `layers` names, one or two, each (N, channels, H / 16, W / 16).
        """

    @property
    def has_weights(self) -> bool:
        return self.origin != RANDOM_WEIGHTS

    @abstractmethod
    def load(self, weights: Weights) -> None:
        """Take weights, and tell in `origin` which.

        Args:
            weights: `published`, or a file; not `random`, which is what it has without.
        Raises:
            WeightsError: if it has none, or they do not fit.
            DownloadError: if the published ones are not here and cannot be fetched.
        """

    def to_fetch(self) -> str | None:
        """The address that `load` would fetch published weights from; None where they are here, or there are none."""
        return None

    def maps(self, pixels: Tensor) -> Maps:
        """The features of its encoder before they become L1 and L2: what a patch memory remembers.

        Args:
            pixels: (N, 3, H, W), normalised RGB.
        Returns:
            (N, C1, H / 8, W / 8) and (N, C2, H / 16, W / 16), (C1, C2) = `map_channels`.
        """
        raise NotImplementedError("this teacher has no maps; ask for its `map_channels` first")

    def features_of(self, maps: Maps, layers: Layers = "l1+l2") -> Features:
        """`forward`, from what `maps` gives, so that whoever needs both runs the encoder once."""
        raise NotImplementedError("this teacher has no maps; ask for its `map_channels` first")

    @torch.no_grad()
    def settle(self, pixels: Tensor) -> None:
        """Learn from good pictures what it has to know of them before it teaches.

        A network with random weights gives its batch normalisations their statistics: with the initial ones its
        activations fade from layer to layer, and all positions get nearly the same features. One with weights of its
        own needs nothing.

        Args:
            pixels: (N, 3, H, W), normalised RGB.
        Raises:
            ConfigError: if it cannot take pictures of this size.
        """
        if not self.has_weights:
            settle_norms(self, pixels)

    def require_size(self, pixels: Tensor) -> None:
        """Raises `ConfigError` if it cannot take pictures of this size.

        Args:
            pixels: (N, 3, H, W); their values do not matter.
        """


def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], *, found: str, name: str) -> None:
    """Give a module all of its tensors, counters of batches apart; whatever else is there is left.

    Args:
        found: where they are from, and `name`: of the teacher, both for the message.
    Raises:
        WeightsError: if one is missing or of another shape; what is not loaded would stay random.
    """
    wanted = {key: value.shape for key, value in module.state_dict().items()}
    missing = [key for key in wanted if key not in tensors and not key.endswith("num_batches_tracked")]
    wrong = [key for key in wanted if key in tensors and tensors[key].shape != wanted[key]]
    if missing or wrong:
        raise WeightsError(
            f"{found} does not fit the teacher {name}: {len(missing)} tensors missing, {len(wrong)} of another shape "
            f"(the first is {(missing + wrong)[0]}); give the file that belongs to {name}"
        )
    module.load_state_dict({key: tensors[key] for key in wanted if key in tensors}, strict=False)


@torch.no_grad()
def settle_norms(network: nn.Module, pixels: Tensor) -> None:
    """Give all batch normalisations the statistics that these pixels have there."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.Module.train(module)
    network(pixels)
    network.eval()
