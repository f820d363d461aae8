"""Whether an anomaly map is highest where the defect is: a defect found for something beside it was found by luck.

This is the pointing game of Zhang et al. (Top-down neural attention by excitation backprop, 2016), played with the
pictures that are called anomalous.
"""

from __future__ import annotations

import cv2
import numpy as np

from stlm_edge.imaging import Map, Mask
from stlm_edge.spec import Size

REACH = 8
"""Pixels of the network's input that the peak may lie beside the mask, up, down, left and right.

Half a cell of the coarsest features, whose stride is 16: the map is interpolated between the cells' centres, so a peak
says which cell it is and no more. The peak counts if its cell touches the mask.
"""


def peak_in_mask(anomaly_map: Map, mask: Mask | None, *, input_size: Size) -> bool | None:
    """Whether the mask is within `REACH` of the highest pixel; of equally high ones, of any.

    Args:
        anomaly_map: (h, w), of any size.
        mask: (H, W), not 0 on defects, of the same picture at its own size.
        input_size: (height, width) of the network's input, whose pixels `REACH` counts.
    Returns:
        None where nothing is marked.
    """
    if mask is None or not mask.any():
        return None
    rows, columns = np.nonzero(anomaly_map == anomaly_map.max())
    spans = [
        _span((places + 0.5) / cells, reach=REACH / side, pixels=pixels)
        for places, cells, side, pixels in zip((rows, columns), anomaly_map.shape, input_size, mask.shape, strict=True)
    ]
    (top, bottom), (left, right) = spans
    marked = cv2.integral(np.asarray(mask != 0, np.uint8))
    within = marked[bottom, right] - marked[top, right] - marked[bottom, left] + marked[top, left]
    return bool((within > 0).any())


def _span(centres: np.ndarray, *, reach: float, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """First pixels and those behind the last within `reach` of the centres, all in shares of a side; one at least."""
    own = np.floor(centres * pixels).astype(np.int64)
    first = np.minimum(np.rint((centres - reach) * pixels).astype(np.int64), own)
    last = np.maximum(np.rint((centres + reach) * pixels).astype(np.int64), own + 1)
    return first.clip(0, pixels), last.clip(0, pixels)
