"""The picture a person sees: heat map, outline, and a bar that says what was decided and why."""

from __future__ import annotations

import numpy as np

from runtime.detector import Anomaly
from stlm_edge.drawing import WHITE, Colour, draw_regions, draw_text, heat_map, text_width
from stlm_edge.imaging import Image

GOOD: Colour = (86, 138, 46)
ANOMALY: Colour = (52, 46, 200)

_SMALLEST_TEXT = 10
_WIDEST = ("ANOMALY", "score 0.000 >= 0.000", "000.0 fps")
"""The bar is laid out for these, so that its height does not change from frame to frame."""


def draw_overlay(image: Image, anomaly: Anomaly, *, threshold: float, fps: float) -> Image:
    """Draw what was found in a frame.

    Args:
        image: (H, W, 3) uint8, BGR; left as it is.
        fps: inspected frames per second.
    Returns:
        (H + bar, W, 3) uint8, BGR: the picture below a bar that hides nothing of it. The bar's height depends on the
        picture's size alone.
    """
    drawn = heat_map(image, anomaly.anomaly_map, threshold=threshold)
    drawn = draw_regions(drawn, anomaly.anomaly_map, threshold=threshold, colour=WHITE)
    return np.vstack([_bar(drawn.shape[0], drawn.shape[1], anomaly, threshold=threshold, fps=fps), drawn])


def _bar(rows: int, columns: int, anomaly: Anomaly, *, threshold: float, fps: float) -> Image:
    text = max(_SMALLEST_TEXT, min(rows, columns) // 36)
    lines = _lines(columns, height=text)
    bar: Image = np.empty((len(lines) * 2 * text + text, columns, 3), np.uint8)
    bar[:] = ANOMALY if anomaly.is_anomalous else GOOD
    relation = ">=" if anomaly.is_anomalous else "<"
    words = (
        "ANOMALY" if anomaly.is_anomalous else "GOOD",
        f"score {anomaly.score:.3f} {relation} {threshold:.3f}",
        f"{fps:.1f} fps",
    )
    for number, line in enumerate(lines):
        for item, left in line:
            draw_text(bar, words[item], left=left, baseline=2 * text * (number + 1), height=text, colour=WHITE)
    return bar


def _lines(columns: int, *, height: int) -> list[list[tuple[int, int]]]:
    """Which words stand in which line, and how far from the left: as many in a line as fit."""
    lines: list[list[tuple[int, int]]] = [[]]
    left = height
    for item, widest in enumerate(_WIDEST):
        width = text_width(widest, height=height)
        if lines[-1] and left + width > columns - height:
            lines.append([])
            left = height
        lines[-1].append((item, left))
        left += width + 2 * height
    return lines
