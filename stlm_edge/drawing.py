"""Pictures for people: heat maps, outlines of what was found, and contact sheets.

Maps are drawn on a scale that depends on the threshold and never on the picture: half of the colours lie below the
threshold, half between it and 1, the highest value of an anomaly map. So any two pictures can be compared. Only
`own_scale` shows a map between its own lowest and highest value, for where it stays below the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from stlm_edge.imaging import Image, Map, resize
from stlm_edge.names import for_drawing
from stlm_edge.spec import Size

Colour = tuple[int, int, int]
"""Blue, green, red."""

WHITE: Colour = (255, 255, 255)
INK: Colour = (48, 42, 38)
AMBER: Colour = (40, 215, 255)
RED: Colour = (60, 60, 255)

_HALO: Colour = (32, 32, 32)
_EMPTY: Colour = (236, 234, 232)
_CALM = 0.3
"""Share of the scale up to which a heat map shows the picture alone: 60 % of the threshold."""
_STRONGEST = 0.7
_FONT = cv2.FONT_HERSHEY_SIMPLEX

_Value = TypeVar("_Value", np.uint8, np.float32)


def heat_map(image: Image, anomaly_map: Map, *, threshold: float) -> Image:
    """`add_heat` on a copy of the picture."""
    drawn = image.copy()
    add_heat(drawn, anomaly_map, threshold=threshold)
    return drawn


def add_heat(image: Image, anomaly_map: Map, *, threshold: float) -> None:
    """Lay the map over the picture, the more opaque the more anomalous; calm areas stay as they are.

    Args:
        image: (H, W, 3) uint8, BGR, contiguous; drawn into.
        anomaly_map: (h, w), 0 … 1; one of another size is brought to the picture's.
        threshold: the value from which on a pixel counts as anomalous.
    """
    level = _level(anomaly_map, threshold=threshold)
    region = _warm_region(level, (image.shape[0], image.shape[1]))
    if region is None:
        return
    level = np.ascontiguousarray(_fitted(level, image)[region])
    colours, remainder = _blending()
    remaining = cv2.merge([cv2.LUT(level, remainder)] * 3)
    below = cv2.multiply(np.ascontiguousarray(image[region]), remaining, scale=1 / 255)
    image[region] = cv2.add(below, cv2.applyColorMap(level, colours))


def heat_layer(anomaly_map: Map, *, threshold: float) -> NDArray[np.uint8]:
    """(h, w, 4), blue, green, red, opacity: what `add_heat` lays over a picture, for programs that do so themselves."""
    level = _level(anomaly_map, threshold=threshold)
    _, remainder = _blending()
    colours = cv2.applyColorMap(level, cv2.COLORMAP_TURBO)
    return np.dstack([colours, 255 - cv2.LUT(level, remainder)])


def false_colour(anomaly_map: Map, *, threshold: float) -> Image:
    """The map alone, from dark blue over grey at the threshold to yellow at 1; the same to colour-blind eyes."""
    return np.asarray(cv2.applyColorMap(_level(anomaly_map, threshold=threshold), cv2.COLORMAP_CIVIDIS), np.uint8)


def own_scale(anomaly_map: Map) -> Image:
    """The map alone, from dark blue at its lowest value to yellow at its highest; a flat one is dark blue."""
    lowest, highest = float(anomaly_map.min()), float(anomaly_map.max())
    return false_colour((anomaly_map - lowest) / max(highest - lowest, 1e-6), threshold=0.5)


def mark_peak(image: Image, anomaly_map: Map) -> Image:
    """A copy of the picture with a cross where the map of its size is highest."""
    drawn = image.copy()
    row, column = np.unravel_index(int(anomaly_map.argmax()), anomaly_map.shape)
    arm = max(5, max(image.shape[:2]) // 15)  # sheets fit the longer side
    stroke = max(1, arm // 12)
    for colour, thickness in ((_HALO, 3 * stroke), (RED, stroke)):
        cv2.drawMarker(drawn, (int(column), int(row)), colour, cv2.MARKER_CROSS, arm, thickness, cv2.LINE_AA)
    return drawn


def draw_regions(image: Image, anomaly_map: Map, *, threshold: float, colour: Colour = AMBER) -> Image:
    """`add_outlines` on a copy of the picture."""
    drawn = image.copy()
    add_outlines(drawn, anomaly_map, threshold=threshold, colour=colour)
    return drawn


def add_outlines(image: Image, anomaly_map: Map, *, threshold: float, colour: Colour = AMBER) -> None:
    """Outline where the map reaches the threshold.

    Args:
        image: (H, W, 3) uint8, BGR, contiguous; drawn into.
        anomaly_map: (h, w); one of another size is brought to the picture's.
    """
    if not (anomaly_map >= threshold).any():
        return
    found = np.asarray(_fitted(anomaly_map, image) >= threshold, np.uint8)
    contours, _ = cv2.findContours(found, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    thickness = max(1, round(min(image.shape[:2]) / 300))
    # The staircase of pixels is straightened within the line's own thickness, since each step of it costs time.
    contours = [cv2.approxPolyDP(contour, thickness / 4, True) for contour in contours]
    # The dark line beneath keeps the bright one visible on a bright part.
    cv2.drawContours(image, contours, -1, _HALO, thickness + 2, cv2.LINE_AA)
    cv2.drawContours(image, contours, -1, colour, thickness, cv2.LINE_AA)


def text_width(text: str, *, height: int) -> int:
    """How many pixels `draw_text` takes for `text`, whose capitals are `height` pixels high."""
    return int(cv2.getTextSize(for_drawing(text), _FONT, _scale(height), _stroke(height))[0][0])


def draw_text(image: Image, text: str, *, left: int, baseline: int, height: int, colour: Colour) -> None:
    """Write one line of text into `image`, as `for_drawing` has it; `height` is that of a capital letter in pixels."""
    origin = (left, baseline)
    cv2.putText(image, for_drawing(text), origin, _FONT, _scale(height), colour, _stroke(height), cv2.LINE_AA)


def contact_sheet(
    rows: Sequence[Sequence[Image]],
    *,
    titles: Sequence[str],
    captions: Sequence[str],
    cell: Size = (224, 224),
) -> Image:
    """Lay pictures out in a table, each fitted into its cell without distortion.

    Args:
        rows: one picture per column in each; (H, W, 3) uint8, BGR, of any size.
        titles: one per column.
        captions: one per row, written left of it; may have several lines.
        cell: (height, width) of a picture's place in pixels.
    Raises:
        ValueError: if the numbers of pictures, titles and captions do not agree.
    """
    text = max(9, cell[0] // 20)
    gap = text
    lines = [caption.split("\n") for caption in captions]
    margin = max((text_width(line, height=text) for caption in lines for line in caption), default=0) + 2 * gap
    head = text + 2 * gap
    height = head + len(rows) * (cell[0] + gap)
    width = margin + len(titles) * (cell[1] + gap)
    canvas: Image = np.full((height, width, 3), 255, np.uint8)
    for column, title in enumerate(titles):
        centre = margin + column * (cell[1] + gap) + cell[1] // 2
        left = centre - text_width(title, height=text) // 2
        draw_text(canvas, title, left=left, baseline=head - gap, height=text, colour=INK)
    for index, (pictures, caption) in enumerate(zip(rows, lines, strict=True)):
        top = head + index * (cell[0] + gap)
        for number, line in enumerate(caption):
            baseline = top + cell[0] // 2 + text // 2 + round((number - (len(caption) - 1) / 2) * 2 * text)
            draw_text(canvas, line, left=gap, baseline=baseline, height=text, colour=INK)
        for column, (picture, _) in enumerate(zip(pictures, titles, strict=True)):
            left = margin + column * (cell[1] + gap)
            canvas[top : top + cell[0], left : left + cell[1]] = _letterboxed(picture, cell)
    return canvas


def _level(anomaly_map: Map, *, threshold: float) -> NDArray[np.uint8]:
    """(H, W), 0 … 255; the threshold lies at 127.5.

    Two straight lines meet there. Which of them holds on its side of the threshold is told by which is the higher.
    """
    steep_below, steep_above = 127.5 / max(threshold, 1e-6), 127.5 / max(1 - threshold, 1e-6)
    below = anomaly_map * np.float32(steep_below)
    above = anomaly_map * np.float32(steep_above) + np.float32(127.5 - threshold * steep_above)
    level = np.maximum(below, above, out=below) if steep_above > steep_below else np.minimum(below, above, out=below)
    return np.asarray(cv2.convertScaleAbs(level), np.uint8)


def _warm_region(level: NDArray[np.uint8], size: Size) -> tuple[slice, slice] | None:
    """Rows and columns of a picture of `size` outside of which the map is calm; None if it is calm everywhere."""
    left, top, width, height = cv2.boundingRect(np.asarray(level > 255 * _CALM, np.uint8))
    if width == 0:
        return None
    # One value more on each side, up to which those within reach when the map is brought to the picture's size.
    spans = ((top, height, level.shape[0], size[0]), (left, width, level.shape[1], size[1]))
    rows, columns = (
        slice(max(0, (start - 1) * pixels // values), min(pixels, -(-(start + count + 1) * pixels // values)))
        for start, count, values, pixels in spans
    )
    return rows, columns


def _fitted(values: NDArray[_Value], image: Image) -> NDArray[_Value]:
    if values.shape == image.shape[:2]:
        return values
    resized = cv2.resize(values, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, values.dtype)


@cache
def _blending() -> tuple[Image, NDArray[np.uint8]]:
    """By level: (256, 1, 3) what a heat map adds, and (256,) what it leaves of the picture, 255 for all."""
    share = np.linspace(0, 1, 256, dtype=np.float32)
    opacity = _STRONGEST * np.clip((share - _CALM) / (1 - _CALM), 0, 1)
    colours = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_TURBO)
    added = np.asarray(np.rint(colours * opacity[:, None, None]), np.uint8)
    return added, np.asarray(np.rint(255 * (1 - opacity)), np.uint8)


def _letterboxed(image: Image, cell: Size) -> Image:
    rows, columns = image.shape[:2]
    scale = min(cell[0] / rows, cell[1] / columns)
    fitted = resize(image, (max(1, round(rows * scale)), max(1, round(columns * scale))))
    box: Image = np.full((*cell, 3), _EMPTY, np.uint8)
    top, left = (cell[0] - fitted.shape[0]) // 2, (cell[1] - fitted.shape[1]) // 2
    box[top : top + fitted.shape[0], left : left + fitted.shape[1]] = fitted
    return box


def _scale(height: int) -> float:
    return cv2.getFontScaleFromHeight(_FONT, height, _stroke(height))


def _stroke(height: int) -> int:
    return max(1, round(height / 10))
