"""Which part of a frame is inspected: polygons that a person drew, and a mask of what to ignore.

The polygons are in LabelMe's JSON. Shapes labelled `ignore` are cut out of the others; where there are no others, out
of the whole frame. A pixel belongs to a shape if its centre does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from stlm_edge.errors import ConfigError, ImageError, shown
from stlm_edge.imaging import Map, Mask
from stlm_edge.masks import read_mask
from stlm_edge.records import read_object
from stlm_edge.scoring import image_score
from stlm_edge.spec import MOST_PIXELS, Size

IGNORE = "ignore"
"""Label of the shapes that are cut out, in any case."""

MOST_WORK = 1 << 31
"""Pixels that all shapes together may make us look at, some seconds' worth."""

Polygon = list[tuple[float, float]]
"""x and y of each corner, in pixels from the picture's upper left corner."""


@dataclass(frozen=True, eq=False)
class Area:
    """The pixels of a frame that are inspected; outside of them the anomaly map counts as 0.

    Attributes:
        mask: (H, W) uint8, 1 inspected, 0 not; not to be written to.
        source: the files that it came from, for messages.
    """

    mask: Mask
    source: str

    def __post_init__(self) -> None:
        if self.mask.ndim != 2 or self.mask.dtype != np.uint8 or self.mask.max(initial=0) > 1:
            raise ConfigError(
                f"{self.source} gives an area of shape {self.mask.shape} and type {self.mask.dtype}, expected (H, W) "
                "uint8 of 0 and 1"
            )
        if not self.mask.any():
            raise ConfigError(f"{self.source} leaves nothing of the frame to inspect; draw what is to be inspected")

    @property
    def size(self) -> Size:
        """(height, width) of the frames it is for."""
        return self.mask.shape[0], self.mask.shape[1]

    @cached_property
    def share(self) -> float:
        """Of the frame, 0 … 1."""
        return float(self.mask.mean())

    def require_size(self, size: Size) -> None:
        """Raises `ImageError` if a frame of `size` (height, width) is not what the area was drawn on."""
        if size != self.size:
            raise ImageError(
                f"found a frame of {_sides(size)}, {self.source} was drawn on one of {_sides(self.size)}; set the "
                "camera to that, or draw the area again"
            )

    def scaled(self, size: Size) -> ScaledArea:
        """The area on a map of another size, by the pixels' centres. Raises `ConfigError` if nothing is left of it."""
        mask = cv2.resize(self.mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        pixels = int(np.count_nonzero(mask))
        if not pixels:
            raise ConfigError(
                f"{self.source} is so small that nothing of it is left on a map of {_sides(size)}; draw a larger area"
            )
        return ScaledArea(mask.astype(np.float32), pixels)


@dataclass(frozen=True, eq=False)
class ScaledArea:
    """An area on the scale of an up-sampled map.

    Attributes:
        mask: (H, W) float32, 1 inspected, 0 not.
        pixels: how many are inspected, at least 1.
    """

    mask: Map
    pixels: int

    def score(self, network_map: Map, *, top_k: int) -> float:
        """The image score of what lies inside, of a map of any size; it is brought to this one's.

        Of a smaller area than `top_k` pixels, all of them count.
        """
        enlarged = cv2.resize(network_map, self.mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
        inside = np.multiply(enlarged, self.mask, out=np.asarray(enlarged, np.float32))
        return image_score(inside, top_k=min(top_k, self.pixels))


def read_area(*, roi: Path | None, ignore: Path | None) -> Area | None:
    """The area that is left of what is drawn in one file and masked by the other; None if neither is given.

    Args:
        roi: JSON of LabelMe with polygons and rectangles.
        ignore: a picture of the frame's size, white where nothing is to be found.
    Raises:
        ConfigError: if the shapes cannot be read, do not lie in the picture or leave nothing to inspect.
        ImageError: if `ignore` is not a picture, or of another size than `roi`.
    """
    mask = None if roi is None else _read_shapes(roi)
    if ignore is not None:
        ignored = read_mask(ignore, size=None if mask is None else mask.shape)
        mask = np.asarray((1 if mask is None else mask) * (1 - ignored), np.uint8)
    source = " with ".join(str(path) for path in (roi, ignore) if path is not None)
    return None if mask is None else Area(mask, source)


def _read_shapes(path: Path) -> Mask:
    try:
        drawing = read_object(path, error=ConfigError, remedy="give LabelMe's JSON of the area")
        size = _whole(drawing, "imageHeight"), _whole(drawing, "imageWidth")
        if math.prod(size) > MOST_PIXELS:
            raise ValueError(f"the picture is {_sides(size)}, expected at most {MOST_PIXELS} pixels")
        if not isinstance(drawing["shapes"], list):
            raise ValueError(f"shapes is {shown(drawing['shapes'])}")
        shapes = [(_is_ignored(shape), _polygon(shape, size)) for shape in drawing["shapes"]]
        if sum(_work(polygon) for _, polygon in shapes) > MOST_WORK:
            raise ValueError(f"{len(shapes)} shapes cover the picture too many times over")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist, expected LabelMe's JSON of the area; check the path") from None
    except (ValueError, TypeError, KeyError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(
            f"{path} is not a drawing of LabelMe ({reason}); expected imageHeight, imageWidth and shapes that are "
            "polygons or rectangles inside the picture: draw the area again"
        ) from None
    inspected = [polygon for is_ignored, polygon in shapes if not is_ignored]
    mask = _filled(inspected, size) if inspected else np.ones(size, np.uint8)
    return mask & (1 - _filled([polygon for is_ignored, polygon in shapes if is_ignored], size))


def _whole(drawing: Any, name: str) -> int:
    value = drawing[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {shown(value)}")
    return value


def _is_ignored(shape: Any) -> bool:
    """By the label in any case. What only sounds like it is refused: the wrong way round nothing else is inspected."""
    if not isinstance(shape, dict):
        raise ValueError(f"found {shown(shape)} among the shapes")
    word = str(shape["label"]).strip().casefold()
    if word != IGNORE and IGNORE in word:
        raise ValueError(
            f"shape {shown(shape['label'])} may be meant to be ignored or not, expected {IGNORE!r} or another word"
        )
    return word == IGNORE


def _polygon(shape: dict[str, Any], size: Size) -> Polygon:
    kind, label = shape["shape_type"], shape["label"]
    points = []
    for point in shape["points"]:
        if not (isinstance(point, list) and len(point) == 2 and all(type(each) in (int, float) for each in point)):
            raise ValueError(f"shape {shown(label)} has the point {shown(point)}, expected two numbers")
        points.append((float(point[0]), float(point[1])))
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points
        points = [(left, top), (right, top), (right, bottom), (left, bottom)]
    elif not (kind == "polygon" or (kind == "rectangle" and len(points) == 4)):
        raise ValueError(f"shape {shown(label)} is a {kind} of {len(points)} points")
    if len(points) < 3:
        raise ValueError(f"shape {shown(label)} has {len(points)} points")
    for x, y in points:
        if not (math.isfinite(x) and math.isfinite(y) and 0 <= x <= size[1] and 0 <= y <= size[0]):
            raise ValueError(f"shape {shown(label)} has the point ({x:g}, {y:g}) outside of the {_sides(size)} picture")
    return points


def _work(polygon: Polygon) -> float:
    """How many pixels have to be looked at: those around it, and those along its edges."""
    x, y = np.array(polygon).T
    return float(np.ptp(x) * np.ptp(y) + 8 * np.abs(np.diff(y, append=y[0])).sum())


def _filled(polygons: list[Polygon], size: Size) -> Mask:
    """(H, W) of 0 and 1: the pixels whose centres lie in one of the polygons, by the even-odd rule."""
    filled = np.zeros(size, np.uint8)
    for polygon in polygons:
        left, top = (math.floor(min(values)) for values in zip(*polygon, strict=True))
        right, bottom = (math.ceil(max(values)) for values in zip(*polygon, strict=True))
        # Whoever walks along a row from the left is inside after each odd crossing of an edge.
        crossings = np.zeros((bottom - top, right - left + 1), np.uint8)
        for (x, y), (to_x, to_y) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
            rows = np.arange(math.ceil(min(y, to_y) - 0.5), math.ceil(max(y, to_y) - 0.5))
            if rows.size:
                at = x + (rows + 0.5 - y) * ((to_x - x) / (to_y - y))
                crossings[rows - top, np.ceil(at - 0.5).astype(np.intp) - left] ^= 1
        filled[top:bottom, left:right] |= np.bitwise_xor.accumulate(crossings, axis=1)[:, :-1]
    return filled


def _sides(size: Size) -> str:
    return f"{size[0]} x {size[1]} (height x width)"
