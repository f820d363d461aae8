"""The picture a person sees: heat map, outline, and a bar that says what was decided and why."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cache

import numpy as np

from runtime.anomaly import Anomaly
from runtime.inspection import Fault
from runtime.part import Part, PartVerdict
from stlm_edge.drawing import AMBER, INK, WHITE, Colour, add_heat, add_outlines, draw_text, text_width
from stlm_edge.imaging import Image, in_colour

GOOD: Colour = (86, 138, 46)
UNCLEAR: Colour = (8, 112, 150)
ANOMALY: Colour = (30, 98, 214)
ALARM: Colour = (44, 24, 190)
FAULT: Colour = AMBER

_RESULTS: dict[PartVerdict, Colour] = {
    "good": GOOD,
    "unclear": UNCLEAR,
    "reject": ALARM,
    "missed": FAULT,
    "fault": FAULT,
}
_SMALLEST_TEXT = 10
_WIDEST = ("CAMERA FAULT:", "score 0.000 >= 0.000", "000.0 fps")
"""The bar is laid out for these, so that its height does not change from frame to frame."""


def draw_overlay(
    image: Image,
    anomaly: Anomaly | None,
    *,
    threshold: float,
    fps: float | None,
    fault: Fault | None = None,
    alarm: bool = False,
) -> Image:
    """Draw what was found in a frame.

    Args:
        image: (H, W, 3) uint8, BGR, or (H, W), grey; left as it is.
        anomaly: None for a frame that was not inspected.
        fps: inspected frames per second; None where there is no pace.
        fault: of the frame itself.
        alarm: the part in view is anomalous, whatever this frame says.
    Returns:
        (H + bar, W, 3) uint8, BGR: the picture below a bar that hides nothing of it. The bar's height depends on the
        picture's size alone.
    """
    rows, columns = image.shape[:2]
    text = max(_SMALLEST_TEXT, min(rows, columns) // 36)
    lines = _lines(columns, height=text)
    bar = len(lines) * 2 * text + text
    drawn: Image = np.empty((bar + rows, columns, 3), np.uint8)
    colour, words = _verdict(anomaly, threshold=threshold, fault=fault, alarm=alarm)
    drawn[:bar] = colour
    for number, line in enumerate(lines):
        for item, left in line:
            word = (*words, "" if fps is None else f"{fps:.1f} fps")[item]
            ink = INK if colour == FAULT else WHITE
            draw_text(drawn, word, left=left, baseline=2 * text * (number + 1), height=text, colour=ink)
    drawn[bar:] = in_colour(image)
    if anomaly is not None:
        # The network's own map where it will do: one in frame pixels stays with the anomaly, in the outputs' queues.
        is_plain = anomaly.tiling is None and anomaly.area is None
        shown = anomaly.network_map if is_plain else anomaly.anomaly_map
        add_heat(drawn[bar:], shown, threshold=threshold)
        add_outlines(drawn[bar:], shown, threshold=threshold, colour=WHITE)
    return drawn


def add_part(image: Image, part: Part) -> Image:
    """A bar with a part's result above a picture of any kind.

    Args:
        image: (H, W, 3) uint8, BGR; left as it is.
    Returns:
        (bar + H, W, 3) uint8, BGR; the bar's height depends on the picture's size alone.
    """
    rows, columns = image.shape[:2]
    text = max(_SMALLEST_TEXT, min(rows, columns) // 30)
    drawn: Image = np.empty((3 * text + rows, columns, 3), np.uint8)
    colour = _RESULTS[part.verdict]
    drawn[: 3 * text] = colour
    name = f"part {part.number}" if part.part_id is None else f"part {part.number} ({part.part_id})"
    word = f"{part.verdict.upper()}: {name}, {part.latency_ms:.0f} ms"
    draw_text(drawn, word, left=text, baseline=2 * text, height=text, colour=INK if colour == FAULT else WHITE)
    drawn[3 * text :] = image
    return drawn


def drawn_once(draw: Callable[[], Image], *, on_drawn: Callable[[float], None]) -> Callable[[], Image]:
    """Have `draw` called when the picture is first asked for, by whichever thread, and once only.

    Args:
        on_drawn: is told the milliseconds that drawing took, on the thread that drew.
    Returns:
        A function that hands out the same array each time.
    """
    lock = threading.Lock()
    drawn: list[Image] = []

    def picture() -> Image:
        with lock:
            if not drawn:
                start_s = time.perf_counter()
                drawn.append(draw())
                on_drawn(1e3 * (time.perf_counter() - start_s))
            return drawn[0]

    return picture


def _verdict(
    anomaly: Anomaly | None, *, threshold: float, fault: Fault | None, alarm: bool
) -> tuple[Colour, tuple[str, str]]:
    """The bar's colour and its first words."""
    if anomaly is None:
        return FAULT, ("CAMERA FAULT:", fault or "")
    relation = ">=" if anomaly.is_anomalous else "<"
    score = f"score {anomaly.score:.3f} {relation} {threshold:.3f}"
    if alarm:
        return ALARM, ("ALARM", score)
    if anomaly.is_unclear:
        return UNCLEAR, ("UNCLEAR", score)
    return (ANOMALY, ("ANOMALY", score)) if anomaly.is_anomalous else (GOOD, ("GOOD", score))


@cache
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
