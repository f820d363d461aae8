"""Defects of the synthetic part, drawn from geometry: curves, outlines and broken facets.

None of them is a thresholded noise field or a pasted texture, so the pseudo anomalies that training makes do not give
these defects away.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from stlm_edge.plate.scene import Box, Opening, Plane, Scene

Colour = NDArray[np.float32]
Area = NDArray[np.bool_]


def scratch(scene: Scene, rng: np.random.Generator, colour: Colour) -> Area:
    """Scratch the plate along a shallow curve of 15 to 40 % of the shorter side.

    Args:
        colour: (H, W, 3), changed in place, only where the result is True.
    Returns:
        (H, W), True on the defect.
    """
    length = rng.uniform(0.15, 0.4)
    bend = rng.uniform(-0.12, 0.12) * length
    half_width = max(rng.uniform(0.002, 0.004), 0.7 / scene.scale)
    u, v, angle = _scratch_place(scene, rng, length=length)
    box = scene.box(u, v, length / 2 + abs(bend) + 0.01)
    cosine, sine = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    from_u, from_v = scene.u[box] - np.float32(u), scene.v[box] - np.float32(v)
    along = (from_u * cosine + from_v * sine) / np.float32(length) + np.float32(0.5)
    curve = np.float32(4 * bend) * (along * (1 - along) - np.float32(0.125))
    across = np.asarray(from_v * cosine - from_u * sine - curve, np.float32)

    knots = np.linspace(0, 1, 9)
    depth = rng.uniform(0.45, 1.0, 9)
    depth[[0, -1]] = 0.35
    strength = np.interp(along, knots, depth, left=0, right=0).astype(np.float32)
    groove = _ridge(across, half_width) * strength
    flank = _ridge(across + np.float32(1.3 * half_width), half_width) * strength
    weight = np.maximum(groove, np.float32(0.7) * flank) * scene.solid(box)
    shown = weight > 0.12
    bright = rng.uniform(0.28, 0.42) * (1 if rng.random() < 0.6 else -1)
    change = np.where(shown, bright * groove - np.float32(0.55 * bright) * flank, 0) * scene.solid(box)
    colour[box] += change[..., None]
    return _area(scene, box, shown)


def stain(scene: Scene, rng: np.random.Generator, colour: Colour) -> Area:
    """Stain the plate with a translucent brownish blot of 6 to 14 % of the shorter side; as `scratch` otherwise."""
    radius = rng.uniform(0.03, 0.07)
    u, v = _spot(scene, rng, clearance=0.8 * radius)
    box = scene.box(u, v, 1.5 * radius)
    stretch = rng.uniform(0.8, 1.25)
    from_u, from_v = (scene.u[box] - np.float32(u)) * stretch, (scene.v[box] - np.float32(v)) / stretch
    theta = np.arctan2(from_v, from_u)
    outline = np.ones_like(theta)
    for wave, share in ((2, 0.12), (3, 0.09), (5, 0.05), (8, 0.03)):
        outline += np.float32(rng.uniform(0.3, 1) * share) * np.cos(wave * theta + rng.uniform(0, 2 * math.pi))
    inward = 1 - np.hypot(from_u, from_v) / (outline * np.float32(radius))
    soft = np.float32(rng.uniform(0.35, 0.7))
    body = np.clip(inward / soft, 0, 1)
    body = body * body * (3 - 2 * body)
    dried_edge = np.exp(-(((inward - np.float32(0.22)) / np.float32(0.1)) ** 2))
    alpha = np.clip(np.float32(0.8) * body + np.float32(0.3) * dried_edge * body, 0, 1) * scene.solid(box)
    shown = alpha > 0.06
    absorbed = np.array((0.62, 0.46, 0.34)) * rng.uniform(0.75, 1.0)
    colour[box] *= 1 - (alpha * shown)[..., None] * absorbed.astype(np.float32)
    return _area(scene, box, shown)


def chip(scene: Scene, rng: np.random.Generator, colour: Colour) -> Area:
    """Break a piece of 4 to 9 % of the shorter side out of the plate's edge or a rim; as `scratch` otherwise."""
    radius = rng.uniform(0.027, 0.048)
    u, v = _rim_point(scene, rng)
    box = scene.box(u, v, 1.2 * radius)
    origin = np.array((box[1].start, box[0].start), np.float64)
    centre = np.array(scene.pixel(u, v)) - origin
    count = int(rng.integers(9, 13))
    turn = np.sort(np.linspace(0, 2 * math.pi, count, endpoint=False) + rng.uniform(-0.2, 0.2, count))
    reach = radius * scene.scale * rng.uniform(0.68, 1.12, count)
    outline = centre + np.stack((np.cos(turn), np.sin(turn)), 1) * reach[:, None]

    shape = scene.u[box].shape
    facets = np.zeros(shape, np.float32)
    start = 0
    while start < count:
        stop = min(count, start + int(rng.integers(1, 4)))
        corners = [centre, *(outline[index % count] for index in range(start, stop + 1))]
        cv2.fillPoly(facets, [_fixed(np.array(corners))], float(rng.uniform(0.3, 1.02)), cv2.LINE_8, 4)
        start = stop
    coarse = rng.standard_normal((10, 10), dtype=np.float32) * np.float32(0.05)
    facets += np.asarray(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
    gone = centre + (outline - centre) * rng.uniform(0.3, 0.6, count)[:, None]
    facets += _filled(shape, gone) * (np.float32(0.07) - facets)

    broken = _filled(shape, outline) * scene.solid(box)
    shadow = np.clip(_filled(shape, outline) - _filled(shape, centre + (outline - centre) * 0.86), 0, 1)
    facets *= 1 - np.float32(0.45) * shadow
    shown = broken > 0.1
    colour[box] += (broken * shown)[..., None] * (facets[..., None] - colour[box])
    return _area(scene, box, shown)


def drilled(scene: Scene, rng: np.random.Generator) -> Opening:
    """One of the drilled holes, to be left out; not the bore and not the slot."""
    return scene.openings[int(rng.integers(len(scene.openings) - 2))]


def _scratch_place(scene: Scene, rng: np.random.Generator, *, length: float) -> tuple[float, float, float]:
    """Middle and direction of a line that lies on metal for at least nine tenths of its length."""
    while True:
        width, height = scene.half
        u, v = rng.uniform(-width, width), rng.uniform(-height, height)
        angle = rng.uniform(0, math.pi)
        way = np.linspace(-length / 2, length / 2, 40, dtype=np.float32)
        clear = _clear(scene, u + way * math.cos(angle), v + way * math.sin(angle), clearance=0.015)
        if clear.mean() >= 0.9:
            return u, v, angle


def _spot(scene: Scene, rng: np.random.Generator, *, clearance: float) -> tuple[float, float]:
    while True:
        width, height = scene.half
        u, v = rng.uniform(-width, width), rng.uniform(-height, height)
        if _clear(scene, np.array([u]), np.array([v]), clearance=clearance).all():
            return u, v


def _clear(scene: Scene, u: NDArray[np.floating], v: NDArray[np.floating], *, clearance: float) -> Area:
    """Whether points lie on metal, `clearance` away from the plate's edge and all openings."""
    points_u, points_v = u.astype(np.float32), v.astype(np.float32)
    width, height = scene.half
    clear = (np.abs(points_u) < width - clearance) & (np.abs(points_v) < height - clearance)
    for opening in scene.openings:
        clear &= opening.distance(points_u, points_v)[0] > clearance
    return np.asarray(clear, np.bool_)


def _rim_point(scene: Scene, rng: np.random.Generator) -> tuple[float, float]:
    """A point on the plate's outline, away from its corners, or on the rim of the bore or a corner hole."""
    width, height = scene.half
    if rng.random() < 0.6:
        along, side = rng.uniform(-0.85, 0.85), (-1 if rng.random() < 0.5 else 1)
        return (along * width, side * height) if rng.random() < 0.5 else (side * width, along * height)
    opening = scene.openings[int(rng.choice((0, 1, 2, 3, 5)))]
    turn = rng.uniform(0, 2 * math.pi)
    return opening.u + opening.radius * math.cos(turn), opening.v + opening.radius * math.sin(turn)


def _ridge(distance: Plane, half_width: float) -> Plane:
    scaled = distance * np.float32(1 / half_width)
    return np.asarray(np.exp(-(scaled * scaled)), np.float32)


def _filled(shape: tuple[int, ...], outline: NDArray[np.float64]) -> Plane:
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [_fixed(outline)], 255, cv2.LINE_AA, 4)
    return np.asarray(canvas * np.float32(1 / 255), np.float32)


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """OpenCV's fixed-point coordinates with four bits after the point."""
    return np.round(points * 16).astype(np.int32)


def _area(scene: Scene, box: Box, shown: Area) -> Area:
    area = np.zeros(scene.size, np.bool_)
    area[box] = shown
    return area
