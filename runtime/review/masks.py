"""Masks that a reviewer draws, and LabelMe's file of one."""

from __future__ import annotations

import json

import cv2
import numpy as np

from stlm_edge.errors import ImageError
from stlm_edge.imaging import Map, Mask, decode, resize_map
from stlm_edge.spec import Size

_HALF = 127
_STRAIGHTENED = 0.5
"""Pixels by which a polygon may leave the staircase of a mask's border."""


def drawn_mask(data: bytes, *, size: Size) -> Mask:
    """The mask in a picture that the page has sent, white where it is marked.

    Args:
        data: a PNG; of a large picture smaller than that, in its proportions.
        size: (height, width) of the picture.
    Returns:
        (height, width) of 0 and 1.
    Raises:
        ImageError: if it is no picture, or of other proportions.
    """
    drawn = decode(data)[:, :, 2]
    rows, columns = drawn.shape
    if abs(rows * size[1] - columns * size[0]) > max(size):
        raise ImageError(
            f"found a mask of {rows} x {columns} (height x width), expected the proportions of its picture of "
            f"{size[0]} x {size[1]}; load the page again"
        )
    return fitted(np.asarray(drawn > _HALF, np.uint8), size)


def fitted(mask: Mask, size: Size) -> Mask:
    """A mask brought to a size (height, width), still of 0 and 1."""
    return np.asarray(cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)


def region(anomaly_map: Map, *, level: float, size: Size) -> Mask:
    """(height, width) of 0 and 1: where the map, brought to that size, reaches a level."""
    return np.asarray(resize_map(anomaly_map, size) >= level, np.uint8)


def mask_file(mask: Mask) -> bytes:
    """A mask as PNG, 255 for a defect."""
    return cv2.imencode(".png", mask * 255)[1].tobytes()


def labelme_file(mask: Mask, *, label: str, picture: str) -> bytes:
    """LabelMe's JSON with the outlines of a mask as polygons; holes are filled, which only the PNG has.

    Args:
        picture: its path, from the folder of the JSON.
    """
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    polygons = [cv2.approxPolyDP(contour, _STRAIGHTENED, True)[:, 0].tolist() for contour in contours]
    shapes = [
        {"label": label, "points": points, "group_id": None, "shape_type": "polygon", "flags": {}}
        for points in polygons
        if len(points) >= 3
    ]
    drawing = {
        "version": "5.0.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": picture,
        "imageData": None,
        "imageHeight": mask.shape[0],
        "imageWidth": mask.shape[1],
    }
    return json.dumps(drawing).encode()
