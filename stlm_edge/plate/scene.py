"""The synthetic part without a defect: a brushed metal plate with a turned face, openings and an engraving.

Everything is drawn in part units: 1 is the shorter side of the picture, the origin is the middle of the plate, u
goes right and v goes down. So the same part comes out at every size, and a wider picture shows a wider plate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from stlm_edge.spec import Size

Plane = NDArray[np.float32]
Box = tuple[slice, slice]

CHAMFER = 0.011
BEVEL = 0.012
CORNER = 0.045
MARGIN = 0.08
TINT_BGR = np.array((1.02, 1.0, 0.975), np.float32)


@dataclass(frozen=True)
class Opening:
    """A round hole, or a slot when `half_length` > 0; all in part units."""

    u: float
    v: float
    radius: float
    half_length: float = 0.0

    def distance(self, u: Plane, v: Plane) -> tuple[Plane, Plane, Plane]:
        """Distance to the rim (negative inside) and the outward direction there."""
        across = u - np.float32(self.u)
        if self.half_length:
            across = across - np.clip(across, -self.half_length, self.half_length)
        down = v - np.float32(self.v)
        radius = np.sqrt(across * across + down * down) + np.float32(1e-6)
        return radius - np.float32(self.radius), across / radius, down / radius


@dataclass(frozen=True)
class Scene:
    """Where the part lies under the camera, how it is lit, and the coordinates of every pixel.

    Attributes:
        size: (height, width) of the picture.
        u, v: (H, W) part coordinates of the pixel centres.
        half: half width and half height of the plate.
        light: unit vector towards the light, in part coordinates.
        edge: (H, W) distance to the plate's outline, negative on the plate.
    """

    size: Size
    u: Plane
    v: Plane
    half: tuple[float, float]
    light: tuple[float, float]
    edge: Plane
    offset: tuple[float, float]
    angle: float
    brightness: float

    @property
    def scale(self) -> int:
        """Pixels per part unit."""
        return min(self.size)

    @property
    def openings(self) -> tuple[Opening, ...]:
        """The nominal holes; the last two are the central bore and the slot."""
        width, height = self.half
        inset = 0.105
        corners = [(sx * (width - inset), sy * (height - inset)) for sx in (-1, 1) for sy in (-1, 1)]
        return (
            *(Opening(u, v, 0.036) for u, v in corners),
            Opening(-(width - 0.11), 0.0, 0.02),
            Opening(0.0, 0.0, 0.085),
            Opening(0.0, height - 0.105, 0.022, 0.085),
        )

    def box(self, u: float, v: float, reach: float) -> Box:
        """The window of pixels that lie within `reach` of (u, v), clipped to the picture."""
        x, y = self.pixel(u, v)
        height, width = self.size
        span = math.ceil(reach * self.scale) + 2
        rows = slice(max(0, int(y) - span), min(height, int(y) + span + 1))
        return rows, slice(max(0, int(x) - span), min(width, int(x) + span + 1))

    def pixel(self, u: float, v: float) -> tuple[float, float]:
        """(x, y) in pixels, pixel centres at whole numbers."""
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        x = (cosine * u - sine * v + self.offset[0]) * self.scale + self.size[1] / 2 - 0.5
        y = (sine * u + cosine * v + self.offset[1]) * self.scale + self.size[0] / 2 - 0.5
        return x, y

    def matrix(self, *, step: float, u: float, v: float) -> NDArray[np.float64]:
        """The affine map from a drawing with `step` units per pixel and its corner at (u, v) to the picture."""
        (x0, y0), (x1, y1), (x2, y2) = self.pixel(u, v), self.pixel(u + step, v), self.pixel(u, v + step)
        return np.array(((x1 - x0, x2 - x0, x0), (y1 - y0, y2 - y0, y0)))

    def coverage(self, distance: Plane) -> Plane:
        """Share of a pixel inside an outline, from its signed distance (negative inside)."""
        return np.asarray(np.clip(np.float32(0.5) - distance * np.float32(self.scale), 0, 1), np.float32)

    def solid(self, box: Box) -> Plane:
        """Share of metal in each pixel of a window: on the plate and not in an opening."""
        u, v = self.u[box], self.v[box]
        metal = self.coverage(self.edge[box])
        for opening in self.openings:
            metal = metal * (1 - self.coverage(opening.distance(u, v)[0]))
        return metal


def place(rng: np.random.Generator, *, size: Size) -> Scene:
    """Lay the part down: shift up to 2 % of the shorter side, rotation up to 2 degrees, light from the upper left."""
    height, width = size
    scale = min(size)
    shift_x, shift_y = rng.uniform(-0.02, 0.02, 2)
    angle = math.radians(rng.uniform(-2, 2))
    light = math.radians(-125 + rng.uniform(-50, 50)) - angle
    x = ((np.arange(width, dtype=np.float32) + 0.5 - width / 2) / scale - shift_x).astype(np.float32)
    y = ((np.arange(height, dtype=np.float32) + 0.5 - height / 2) / scale - shift_y).astype(np.float32)[:, None]
    cosine, sine = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    u, v = cosine * x + sine * y, cosine * y - sine * x
    half = (width / scale / 2 - MARGIN, height / scale / 2 - MARGIN)
    corner_u = np.maximum(np.abs(u) - np.float32(half[0] - CORNER), 0)
    corner_v = np.maximum(np.abs(v) - np.float32(half[1] - CORNER), 0)
    return Scene(
        size=size,
        u=u,
        v=v,
        half=half,
        light=(math.cos(light), math.sin(light)),
        edge=np.sqrt(corner_u * corner_u + corner_v * corner_v) - np.float32(CORNER),
        offset=(float(shift_x), float(shift_y)),
        angle=angle,
        brightness=float(rng.uniform(0.92, 1.08)),
    )


def draw(scene: Scene, rng: np.random.Generator, *, missing: Opening | None) -> NDArray[np.float32]:
    """Draw the part as the lens sees it, before the sensor's noise.

    Args:
        missing: an opening that was never drilled; the plate goes on there with a faint centre-punch mark.
    Returns:
        (H, W, 3) float32, BGR, about 0 … 1.
    """
    metal = _brushed(scene, rng)
    _turned_face(scene, rng, metal)
    _engrave(scene, metal)
    _bevel(scene, metal)
    metal *= _lighting(scene)
    for opening in scene.openings:
        if opening == missing:
            _centre_punch(scene, opening, metal)
        else:
            _cut(scene, opening, metal)
    table = _table(scene, rng)
    table += scene.coverage(scene.edge) * (metal - table)
    return np.asarray(cv2.merge([table * (scene.brightness * tint) for tint in TINT_BGR]), np.float32)


def opening_area(scene: Scene, opening: Opening) -> NDArray[np.bool_]:
    """(H, W), True where `opening` or its chamfer shows."""
    area = np.zeros(scene.size, np.bool_)
    box = _opening_box(scene, opening)
    distance, _, _ = opening.distance(scene.u[box], scene.v[box])
    area[box] = scene.coverage(distance - np.float32(CHAMFER)) > 0
    return area


def smooth_noise(rng: np.random.Generator, *, shape: Size, size: Size) -> Plane:
    """Standard normal values on a coarse grid, enlarged to `size` with soft transitions."""
    coarse = rng.standard_normal(shape, dtype=np.float32)
    return np.asarray(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def _brushed(scene: Scene, rng: np.random.Generator) -> Plane:
    """Reflectance of the brushed face: long hairlines along u in three lengths, and a cloudy change of tone."""
    height, width = scene.size
    rows, columns = (round(560 * side / scene.scale) for side in scene.size)
    hairlines = np.zeros((rows, columns), np.float32)
    for length, strength in ((160, 0.032), (48, 0.024), (12, 0.012)):
        shape = (rows, max(2, columns // length))
        lines = rng.standard_normal(shape, dtype=np.float32)
        hairlines += np.float32(strength) * cv2.resize(lines, (columns, rows), interpolation=cv2.INTER_LINEAR)
    step = 1.1 / 560
    matrix = scene.matrix(step=step, u=-step * columns / 2, v=-step * rows / 2)
    surface = cv2.warpAffine(hairlines, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
    tone = smooth_noise(rng, shape=(5, 5), size=scene.size)
    return np.asarray(0.6 + surface + np.float32(0.012) * tone, np.float32)


def _turned_face(scene: Scene, rng: np.random.Generator, metal: Plane) -> None:
    """A shallow spot face around the bore: concentric tool marks and the hour-glass gloss they give."""
    face = Opening(0.0, 0.0, 0.185)
    box = scene.box(0, 0, 0.2)
    distance, across, down = face.distance(scene.u[box], scene.v[box])
    marks = rng.standard_normal(256).astype(np.float32) * np.float32(0.03)
    ring = ((distance + np.float32(face.radius)) * np.float32(700)).astype(np.intp)
    towards = across * np.float32(scene.light[0]) + down * np.float32(scene.light[1])
    sheen = towards * towards
    gloss = np.float32(0.44) + np.float32(0.34) * sheen * sheen + marks[ring]
    metal[box] += scene.coverage(distance) * (gloss - metal[box])
    step = np.exp(-((distance * np.float32(1 / 0.004)) ** 2))
    metal[box] -= np.float32(0.22) * step * towards


def _engrave(scene: Scene, metal: Plane) -> None:
    """The part number, cut above the bore: a dark groove with one lit flank."""
    canvas = np.zeros((64, 320), np.uint8)
    cv2.putText(canvas, "P2207-A", (8, 50), cv2.FONT_HERSHEY_SIMPLEX, 1.6, 255, 5, cv2.LINE_AA)
    step = 0.3 / 320
    height, width = scene.size
    place_v = -(scene.half[1] + 0.185) / 2 - 32 * step
    depth = 0.0022

    def drawn(u: float, v: float) -> Plane:
        matrix = scene.matrix(step=step, u=-160 * step + u, v=place_v + v)
        return np.asarray(cv2.warpAffine(canvas, matrix, (width, height)) * np.float32(1 / 255), np.float32)

    groove = drawn(0.0, 0.0)
    flank = drawn(-scene.light[0] * depth, -scene.light[1] * depth)
    metal *= 1 - np.float32(0.5) * groove
    metal += np.float32(0.22) * np.maximum(flank - groove, 0)


def _bevel(scene: Scene, metal: Plane) -> None:
    """The broken edge of the plate, bright towards the light and dark away from it."""
    rim = np.abs(scene.edge + np.float32(BEVEL / 2)) < np.float32(BEVEL / 2 + 2 / scene.scale)
    u, v, edge = scene.u[rim], scene.v[rim], scene.edge[rim]
    normal_u = np.sign(u) * np.maximum(np.abs(u) - (scene.half[0] - CORNER), 0)
    normal_v = np.sign(v) * np.maximum(np.abs(v) - (scene.half[1] - CORNER), 0)
    towards = (normal_u * scene.light[0] + normal_v * scene.light[1]) / (np.hypot(normal_u, normal_v) + 1e-6)
    shade = (0.62 + 0.3 * towards).astype(np.float32)
    inside = scene.coverage(edge + np.float32(BEVEL))
    metal[rim] = inside * metal[rim] + (1 - inside) * shade


def _lighting(scene: Scene) -> Plane:
    """Brightness over the field: falls off away from the light, with a bright band across the brushing."""
    along, down = (np.float32(value) for value in scene.light)
    slope = np.float32(0.42) * (along * scene.u + down * scene.v)
    band = (scene.u - np.float32(0.3) * along + np.float32(0.12) * scene.v) * np.float32(1 / 0.22)
    return np.asarray(np.float32(0.94) + slope + np.float32(0.16) * np.exp(-band * band), np.float32)


def _cut(scene: Scene, opening: Opening, metal: Plane) -> None:
    """A through opening: chamfer lit on the side that faces the light, a strip of wall, darkness below."""
    box = _opening_box(scene, opening)
    distance, across, down = opening.distance(scene.u[box], scene.v[box])
    towards = -(across * np.float32(scene.light[0]) + down * np.float32(scene.light[1]))
    chamfer = np.float32(0.58) + np.float32(0.36) * towards
    wall = np.exp(distance * np.float32(1 / 0.012)) * np.maximum(towards, 0)
    interior = np.float32(0.05) + np.float32(0.3) * wall
    outer = scene.coverage(distance - np.float32(CHAMFER))
    inner = scene.coverage(distance)
    metal[box] += outer * (chamfer - metal[box])
    metal[box] += inner * (interior - metal[box])


def _centre_punch(scene: Scene, opening: Opening, metal: Plane) -> None:
    punch = Opening(opening.u, opening.v, 0.004)
    box = scene.box(opening.u, opening.v, 0.01)
    distance, across, down = punch.distance(scene.u[box], scene.v[box])
    towards = across * np.float32(scene.light[0]) + down * np.float32(scene.light[1])
    metal[box] *= 1 - scene.coverage(distance) * (np.float32(0.28) + np.float32(0.25) * towards)


def _table(scene: Scene, rng: np.random.Generator) -> Plane:
    """The dark table around the plate, with the plate's shadow."""
    grain = smooth_noise(rng, shape=(96, 96), size=scene.size)
    shadow = np.exp(-np.maximum(scene.edge, 0) * np.float32(1 / 0.02))
    return np.asarray((np.float32(0.17) + np.float32(0.008) * grain) * (1 - np.float32(0.55) * shadow), np.float32)


def _opening_box(scene: Scene, opening: Opening) -> Box:
    return scene.box(opening.u, opening.v, opening.radius + opening.half_length + CHAMFER)
