"""The trained network in PyTorch, which every engine is compared with where PyTorch is installed."""

from __future__ import annotations

import dataclasses

import torch

from export.gate.answers import Answer
from export.graph.deployment import halve_linear
from stlm_edge.imaging import Image, to_input
from stlm_edge.network.inference import InferencePath, prepare
from stlm_edge.spec import Size


class NetworkAnswers:
    """The network on pictures that the host has resized, as in training and evaluation."""

    name = "pytorch"

    def __init__(self, inspector: InferencePath) -> None:
        self._inspector = inspector.eval()

    def answer(self, image: Image) -> Answer:
        return self._inspect(torch.from_numpy(to_input(image, spec=self._inspector.spec)))

    @torch.no_grad()
    def _inspect(self, pixels: torch.Tensor) -> Answer:
        """(1, H, W, 3), BGR."""
        coarse = self._inspector.network(prepare(pixels, self._inspector.spec))
        _, score = self._inspector.finish(coarse)
        return Answer(coarse[0, 0].numpy(), float(score[0]))


class ResizingNetworkAnswers(NetworkAnswers):
    """The network on frames resized as a graph resizes them: without rounding to whole grey levels."""

    def __init__(self, inspector: InferencePath, frame_size: Size) -> None:
        """
        Args:
            frame_size: (height, width) of all pictures.
        """
        super().__init__(inspector)
        self._frames = dataclasses.replace(inspector.spec, frame_size=frame_size)

    def answer(self, image: Image) -> Answer:
        frame = torch.from_numpy(to_input(image, spec=self._frames)).permute(0, 3, 1, 2).float()
        return self._inspect(halve_linear(frame, self._frames.input_size).permute(0, 2, 3, 1))
