"""Where in a frame the anomaly is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Region:
    """One connected area whose map values reach the threshold, in pixels of the frame.

    Attributes:
        left, top, width, height: the box around it.
        area: in pixels.
        peak: the highest value of the map in it.
    """

    left: int
    top: int
    width: int
    height: int
    area: int
    peak: float
