"""The deployment graph: the trained network rewritten so that TensorRT runs it well, with the same answers.

What changes on the way, none of it by more than rounding:

* batch normalisation goes into the convolution before it,
* the attention biases are looked up once, and the scale of the queries goes into their weights,
* the encoder's blocks are laid out for few copies, and the biases of queries, keys and values go into their weights,
* what the decoder computes from its own parameters alone becomes a constant, and its last attention, of which no
  image feature depends, is left out; one decoder takes both streams as one batch,
* the pixels' order, standard deviation and the fraction of their mean go into the first convolution,
* the score up-samples only the blocks of the map in which the highest pixels can be,
* with `stacked`, both encoders are one of twice the width, in groups.

The paper's comparison multiplies the features before it divides by their lengths: products of normalised values and one
factor for each cell are all that has to travel between the kernels, the former in half precision.
"""

from __future__ import annotations

import copy
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from export.graph.folded_decoder import FoldedDecoder
from export.graph.folding import LocalConv, fold_batch_norms, fold_encoder, fold_pixels
from stlm_edge.errors import ConfigError
from stlm_edge.network.comparison import NORM_EPSILON, StreamFeatures, compare, tlm_map
from stlm_edge.network.decoder import Features, TwoWayDecoder
from stlm_edge.network.design import Design, Layers
from stlm_edge.network.encoder import STRIDE, ImageEncoder
from stlm_edge.network.inference import InferencePath
from stlm_edge.network.teachers.base import Maps, Teacher
from stlm_edge.spec import ModelSpec, Size

Streams = Literal["branched", "stacked"]


class DeploymentGraph(nn.Module):
    """From camera pixels to the coarse map and the score; of a trained `InferencePath`, which it leaves alone."""

    def __init__(
        self,
        inspector: InferencePath,
        *,
        frame_size: Size | None = None,
        streams: Streams = "branched",
        local_conv: LocalConv = "convolution",
        full_map: bool = False,
    ) -> None:
        """
        Args:
            frame_size: (height, width) of the pictures that come in, if the graph is to resize them itself.
            streams: `branched` runs one encoder after the other, `stacked` both as one grouped network.
            local_conv: how the encoders' blocks are written, see `fold_encoder`.
            full_map: also put out the map at the network's input size.
        Raises:
            ConfigError: if the streams cannot be stacked, since another network stands in the plain one's place, or
                frames cannot be resized in the graph.
        """
        super().__init__()
        spec, network = inspector.spec, copy.deepcopy(inspector.network).eval().requires_grad_(False)
        self.spec = spec
        self.design = network.design
        self.frame_size = frame_size
        self.full_map = full_map
        two_students = isinstance(network.plain, ImageEncoder)
        # A SAM in the plain stream's place takes normalised RGB; for two students their first weights do that.
        self.pixels = Pixels(spec, frame_size, normalise=not two_students)
        fold_batch_norms(network)
        for encoder in (network.plain, network.denoising):
            if isinstance(encoder, ImageEncoder):
                fold_encoder(encoder, local_conv=local_conv)
                if two_students:
                    fold_pixels(encoder, mean=self.pixels.mean, std=self.pixels.std)
        self.plain: nn.Module | None = network.plain
        self.denoising: nn.Module | None = network.denoising
        self.both: StackedEncoders | None = None
        if streams == "stacked":
            if not two_students or network.denoising is None:
                raise ConfigError(
                    f"the plain stream is {self.design.plain_stream}, another network than the denoising one; "
                    "only two of a kind can be stacked, export with --streams branched"
                )
            self.plain, self.denoising = None, None
            self.both = StackedEncoders(network.plain, network.denoising)
        self.memory, self.fusion = network.memory, network.fusion
        self.plain_features = network.plain_features
        cells: Size = (spec.input_size[0] // STRIDE, spec.input_size[1] // STRIDE)
        self.decoder = _folded(network.decoder, cells, self.design.layers)
        self.denoising_decoder = _folded(network.denoising_decoder, cells, self.design.layers)
        self.comparison = Comparison(self.design)
        self.feature_aggregation = network.feature_aggregation
        stride = self.design.map_stride
        self.grid: Size = (spec.input_size[0] // stride, spec.input_size[1] // stride)
        self.scoring = Scoring(spec, stride=stride)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """
        Args:
            images: (N, H, W, 3) uint8, BGR; (H, W) = `frame_size` or the network's input size.
        Returns:
            anomaly_map: (N, h, w) float32 in 0 … 1; (h, w) = input size / `design.map_stride`.
            score: (N,) float32, as `InferencePath.forward` defines it.
            full_map: (N, *input_size) float32, only if it was asked for.
        """
        pixels = self.pixels(images)
        maps = None
        if self.memory is not None or self.plain_features is not None:
            assert isinstance(self.plain, Teacher)  # or there would be neither
            maps = self.plain.maps(pixels)
        logits = self._logits(pixels, maps)
        if self.memory is not None and self.fusion is not None and maps is not None:
            coarse = self.fusion(self.memory(*maps), logits)
        else:
            assert logits is not None
            coarse = logits if self.feature_aggregation is None else torch.sigmoid(logits)
        full, score = self.scoring(coarse)
        return (coarse.squeeze(1), score, full) if self.full_map else (coarse.squeeze(1), score)

    def _logits(self, pixels: Tensor, maps: Maps | None) -> Tensor | None:
        """Of the feature aggregation; the map itself where there is none; None where a memory alone makes the map."""
        if self.plain_features is not None and self.feature_aggregation is not None and maps is not None:
            seen: Tensor = self.feature_aggregation(self.plain_features(*maps))
            return seen
        if self.design.aggregation == "memory":
            return None
        plain = None
        if maps is not None:
            assert isinstance(self.plain, Teacher)
            plain = self.plain.features_of(maps, self.design.layers)
        compared: Tensor = self.comparison(self._features(pixels, plain=plain))
        return compared if self.feature_aggregation is None else self.feature_aggregation(compared)

    def _features(self, pixels: Tensor, *, plain: Features | None = None) -> StreamFeatures:
        """Both streams' features. Args: plain: those of the network in the plain stream's place, if they are there."""
        layers = self.design.layers
        if isinstance(self.plain, Teacher):
            denoising: Tensor = self.denoising(pixels)  # type: ignore[misc]  # there is one unless stacked
            return StreamFeatures(
                self.plain(pixels, layers) if plain is None else plain, _decode(self.decoder, denoising)
            )
        if self.both is not None:
            embeddings: Tensor = self.both(pixels)
        else:
            embeddings = torch.cat([self.plain(pixels), self.denoising(pixels)])  # type: ignore[misc]  # as above
        batch = pixels.shape[0]
        if self.denoising_decoder is not None:
            return StreamFeatures(
                _decode(self.decoder, embeddings[:batch]),
                _decode(self.denoising_decoder, embeddings[batch:]),
            )
        decoded = _decode(self.decoder, embeddings)
        return StreamFeatures(tuple(layer[:batch] for layer in decoded), tuple(layer[batch:] for layer in decoded))


class Pixels(nn.Module):
    """From a camera's bytes to what the encoders take."""

    mean: Tensor
    std: Tensor
    whole: Tensor
    top: Tensor
    left: Tensor

    def __init__(self, spec: ModelSpec, frame_size: Size | None, *, normalise: bool) -> None:
        """
        Args:
            normalise: give normalised RGB; otherwise what `fold_pixels` has prepared the first convolution for.
        """
        super().__init__()
        self.size = None if frame_size is None else spec.input_size
        if frame_size is not None:
            halvings(frame_size, spec.input_size)
        self.normalise = normalise
        self.register_buffer("mean", torch.tensor(spec.pixel_mean[::-1]))
        self.register_buffer("std", torch.tensor(spec.pixel_std[::-1]))
        self.register_buffer("whole", self.mean.round().reshape(1, 3, 1, 1))
        # The zeros that the first convolution pads with stand for pixels of the mean colour, fractions included. With
        # its stride of two it reads the border above and on the left only, since all sides are even.
        border = self.mean.reshape(1, 3, 1, 1) - self.whole
        height, width = spec.input_size
        self.register_buffer("top", border.expand(1, 3, 1, width).contiguous())
        self.register_buffer("left", border.expand(1, 3, height + 1, 1).contiguous())

    def forward(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) uint8, BGR → (N, 3, *input_size) float32, one row and one column more if not normalised."""
        pixels = images.float().permute(0, 3, 1, 2)  # TensorRT takes bytes only to cast them, so that comes first
        if self.size is not None:
            pixels = halve_linear(pixels, self.size)
        if self.normalise:
            mean, std = self.mean.reshape(1, 3, 1, 1), self.std.reshape(1, 3, 1, 1)
            return ((pixels - mean) / std).flip(1)
        batch = pixels.shape[0]
        pixels = torch.cat([self.top.expand(batch, -1, -1, -1), pixels - self.whole], dim=2)
        return torch.cat([self.left.expand(batch, -1, -1, -1), pixels], dim=3)


class Comparison(nn.Module):
    """Both streams' features → what the feature aggregation is given, or the map itself where there is none."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.design = design
        self.product = Product()

    def forward(self, features: StreamFeatures) -> Tensor:
        if self.design.aggregation == "none":
            return tlm_map(features)
        if self.design.comparison == "product":
            layers = zip(features.plain, features.denoising, strict=True)
            return torch.cat([self._negative_product(*layer) for layer in layers], dim=1)
        return compare(features, self.design.comparison)

    def _negative_product(self, plain: Tensor, denoising: Tensor) -> Tensor:
        """Minus the product of both divided by their lengths, (N, C, h, w); see `compare`."""
        lengths = [torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(NORM_EPSILON) for x in (plain, denoising)]
        compared: Tensor = self.product(plain, denoising) * (-1 / lengths[0] / lengths[1])
        return compared


class Product(nn.Module):
    """A module for the sake of its name: of the comparison, `half` lets this alone be in FP16."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return first * second


class StackedEncoders(nn.Module):
    """Two encoders of one architecture as one: their weights stacked, convolutions in groups, products in batches."""

    def __init__(self, plain: nn.Module, denoising: nn.Module) -> None:
        super().__init__()
        parameters, buffers = stack_module_state([plain, denoising])
        self._names: dict[str, str] = {}
        for name, tensor in (parameters | buffers).items():
            self._names[name] = name.replace(".", "/")
            self.register_buffer(self._names[name], tensor.detach())
        # Not a submodule: its weights are those above.
        self._skeleton = (copy.deepcopy(plain).to("meta"),)

    def forward(self, pixels: Tensor) -> Tensor:
        """
        Args:
            pixels: (N, 3, H, W).
        Returns:
            (2 N, C, H / 16, W / 16), the plain stream first.
        """

        def run(state: dict[str, Tensor]) -> Any:
            return functional_call(self._skeleton[0], state, (pixels,))

        state = {name: getattr(self, stored) for name, stored in self._names.items()}
        embeddings: Tensor = vmap(run)(state)
        return embeddings.flatten(0, 1)


class Scoring(nn.Module):
    """The coarse map up-sampled, and the score, for which it need not be up-sampled.

    Between the centres of four cells of the coarse map, the up-sampled one is linear in each direction. So each of the
    blocks of `stride` x `stride` pixels that lie over the cells consists of four quarters, each of which is highest in
    one of its corners: a block's maximum is known from 16 of its pixels, and only the blocks that can hold the highest
    pixels are made.
    """

    shares: Tensor

    def __init__(self, spec: ModelSpec, *, stride: int = STRIDE) -> None:
        super().__init__()
        self.size = spec.input_size
        self.top_k = spec.top_k
        # Share of the neighbouring cell in the outermost and in the innermost pixel of a quarter, along one axis.
        self.corners = (0.5 - 0.5 / stride, 0.5 / stride)
        offsets = (torch.arange(stride, dtype=torch.float64) + 0.5) / stride - 0.5
        # How much of the cell before, of a cell itself and of the one behind is in each pixel of its block.
        axis = torch.stack([(-offsets).clamp(min=0), 1 - offsets.abs(), offsets.clamp(min=0)])
        self.register_buffer("shares", torch.einsum("ip,jq->ijpq", axis, axis).reshape(9, stride * stride).float())

    def forward(self, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 1, h, w) → (N, *input_size), which costs nothing where nobody asks for it, and (N,)."""
        full = F.interpolate(coarse, size=self.size, mode="bilinear", align_corners=False).squeeze(1)
        return full, self.top_k_mean(coarse.squeeze(1))

    def top_k_mean(self, coarse: Tensor) -> Tensor:
        """Mean of the `top_k` highest pixels of the up-sampled map.

        They lie in the `top_k` blocks with the highest maxima: a block that is not among those has as many above it,
        each with a pixel at least as high.

        Args:
            coarse: (N, h, w).
        Returns:
            (N,)
        """
        height, width = coarse.shape[1:]
        tall = torch.cat([coarse[:, :1], coarse, coarse[:, -1:]], dim=1)
        bordered = torch.cat([tall[:, :, :1], tall, tall[:, :, -1:]], dim=2)
        maxima = self._block_maxima(bordered).flatten(1)
        best = maxima.topk(min(self.top_k, height * width), dim=1).indices
        around = [bordered[:, row : row + height, column : column + width] for row in range(3) for column in range(3)]
        chosen = torch.stack([cells.flatten(1).gather(1, best) for cells in around], dim=2)
        pixels = (chosen.unsqueeze(3) * self.shares.to(chosen.dtype)).sum(dim=2).flatten(1)
        mean: Tensor = pixels.topk(self.top_k, dim=1).values.mean(dim=1)
        return mean

    def _block_maxima(self, bordered: Tensor) -> Tensor:
        """(N, h + 2, w + 2), with a border of repeated cells → (N, h, w): the highest pixel over each cell."""
        corners = self.corners
        rows = [_mixed(bordered[:, 1:-1], far, s) for far in (bordered[:, :-2], bordered[:, 2:]) for s in corners]
        sides = [
            _mixed(row[:, :, 1:-1], far, s) for row in rows for far in (row[:, :, :-2], row[:, :, 2:]) for s in corners
        ]
        return reduce(torch.maximum, sides)


def _mixed(near: Tensor, far: Tensor, share: float) -> Tensor:
    return near + share * (far - near)


def halvings(frame: Size, size: Size) -> list[Size]:
    """By what a frame's rows and columns are divided, step by step, before it is interpolated to `size`.

    Raises:
        ConfigError: if an odd side would have to be halved, which the host does by fractions of pixels.
    """
    steps, (rows, columns) = [], frame
    while rows >= 2 * size[0] or columns >= 2 * size[1]:
        step = (2 if rows >= 2 * size[0] else 1, 2 if columns >= 2 * size[1] else 1)
        if rows % step[0] or columns % step[1]:
            raise ConfigError(
                f"frames of {frame[0]} x {frame[1]} (height x width) cannot be halved towards {size[0]} x {size[1]} "
                "without splitting pixels; let the camera crop them to even sides, or export without --frame-size"
            )
        rows, columns = rows // step[0], columns // step[1]
        steps.append(step)
    return steps


def halve_linear(pixels: Tensor, size: Size) -> Tensor:
    """The rule of `stlm_edge.imaging.resize`, without its rounding to whole grey levels.

    Args:
        pixels: (N, 3, H, W) float32.
        size: (height, width) wanted.
    """
    for step in halvings((pixels.shape[2], pixels.shape[3]), size):
        pixels = F.avg_pool2d(pixels, step)
    if pixels.shape[2:] == size:
        return pixels
    return F.interpolate(pixels, size=size, mode="bilinear", align_corners=False)


def _folded(decoder: TwoWayDecoder | None, grid: Size, layers: Layers) -> FoldedDecoder | None:
    return None if decoder is None else FoldedDecoder(decoder, grid, layers)


def _decode(decoder: FoldedDecoder | None, embedding: Tensor) -> Features:
    features: Features = (embedding,) if decoder is None else decoder(embedding)
    return features
