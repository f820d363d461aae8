"""The trained network in PyTorch, which every engine is compared with where PyTorch is installed."""

from __future__ import annotations

import dataclasses

import torch

from export.graph.deployment import halve_linear
from stlm_edge.imaging import Image, to_input
from stlm_edge.inspection import Answer
from stlm_edge.network.inference import InferencePath, prepare
from stlm_edge.spec import Size


class NetworkInspector:
    """The network on pictures that the host has resized, as in training and evaluation."""

    name = "pytorch"

    def __init__(self, path: InferencePath) -> None:
        self._path = path.eval()
        self._device = next(path.parameters()).device

    def inspect(self, image: Image) -> Answer:
        return self._inspect(torch.from_numpy(to_input(image, spec=self._path.spec)))

    @torch.no_grad()
    def _inspect(self, pixels: torch.Tensor) -> Answer:
        """(1, H, W, 3), BGR."""
        coarse = self._path.network(prepare(pixels.to(self._device), self._path.spec))
        _, score = self._path.finish(coarse)
        return Answer(coarse[0, 0].cpu().numpy(), float(score[0]))


class ResizingNetworkInspector(NetworkInspector):
    """The network on frames resized as a graph resizes them: without rounding to whole grey levels."""

    def __init__(self, path: InferencePath, frame_size: Size) -> None:
        """
        Args:
            frame_size: (height, width) of all pictures.
        """
        super().__init__(path)
        self._frames = dataclasses.replace(path.spec, frame_size=frame_size)

    def inspect(self, image: Image) -> Answer:
        frame = torch.from_numpy(to_input(image, spec=self._frames)).permute(0, 3, 1, 2).float()
        return self._inspect(halve_linear(frame, self._frames.input_size).permute(0, 2, 3, 1))
