"""Natural synthetic anomalies (NSA, Schlueter et al., ECCV 2022), which the paper's table 11 names, with binary labels.

After the text and the published code (hmsch/natural-synthetic-anomalies at 9195916, its setting "Shift"). A patch of
another good picture, its half sides from a gamma distribution, is resized and Poisson-blended in at another place; in
categories whose background is known only where an object is. Gradients are those of the patch, on textures the stronger
ones of patch and picture. Sizes in pixels are the authors', who have pictures of 224 to 256 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from stlm_edge.imaging import Image, Mask
from stlm_edge.spec import Size

Bounds = tuple[float, float]
Place = tuple[slice, slice]

GAMMA_SHAPE, GAMMA_SCALE, GAMMA_OFFSET = 2.0, 0.05, 0.03
"""Of half a patch's side, as a share of the picture's."""
RESIZE_DEVIATION = 0.5
"""Of the factor that a patch is resized by, about 1."""
MOST_TRIES = 200
SMALLEST_SIDE = 8
"""Pixels of a patch; less cannot be blended."""
LABEL_FROM = 1
"""Grey levels, in the mean over channels: a pixel that changed by more is anomalous."""
LABEL_MEDIAN, OBJECT_MEDIAN = 5, 7
"""Pixels of the medians that take grain out of labels and of object masks."""


@dataclass(frozen=True)
class Nsa:
    """How anomalies are drawn for a category; by default, for one that the authors do not have, as for `transistor`.

    Attributes:
        rows, columns: least and most of half a patch's height and width, as a share of the picture's.
        patches: at most; after the first each is put in or not with equal probability.
        background: its grey level and how far from it an object begins; None: the whole picture is the object.
        object_share: how much of a patch has to be object.
        overlap: how much of a patch's object has to come upon an object.
        factors: between which a patch is resized.
        mixed: whether the stronger gradient wins, and not the patch's always.
    """

    rows: Bounds = (0.03, 0.4)
    columns: Bounds = (0.03, 0.4)
    patches: int = 3
    background: tuple[int, int] | None = None
    object_share: float = 0.7
    overlap: float = 0.25
    factors: Bounds = (0.7, 1.3)
    mixed: bool = False


_BRIGHT, _DARK = (200, 60), (20, 20)
_TEXTURE = Nsa(patches=4, factors=(0.5, 2.0), mixed=True)

OF_CATEGORIES = {
    "bottle": Nsa(background=_BRIGHT),
    "cable": Nsa(rows=(0.05, 0.4), columns=(0.05, 0.4)),
    "capsule": Nsa(rows=(0.03, 0.15), background=_BRIGHT),
    "carpet": _TEXTURE,
    "grid": _TEXTURE,
    "hazelnut": Nsa(rows=(0.03, 0.35), columns=(0.03, 0.35), background=_DARK),
    "leather": _TEXTURE,
    "metal_nut": Nsa(background=_DARK, object_share=0.5),
    "pill": Nsa(rows=(0.03, 0.2), background=_DARK),
    "screw": Nsa(rows=(0.03, 0.12), columns=(0.03, 0.12), patches=4, background=_BRIGHT, object_share=0.5),
    "tile": _TEXTURE,
    "toothbrush": Nsa(columns=(0.03, 0.2), background=_DARK, object_share=0.25),
    "transistor": Nsa(),
    "wood": _TEXTURE,
    "zipper": Nsa(columns=(0.03, 0.2), patches=4, background=_BRIGHT),
}
"""Of MVTec AD, as the authors chose them."""


def natural_patches(rng: np.random.Generator, normal: Image, other: Image, nsa: Nsa) -> tuple[Image, Mask]:
    """Blend one or more patches of another good picture into a normal one.

    Args:
        normal, other: (H, W, 3) uint8 of one size, left unchanged.
        nsa: of their category.
    Returns:
        (H, W, 3) uint8 and (H, W) uint8, 1 where the picture changed by more than `LABEL_FROM` within a patch's object;
        nowhere if no patch could be placed or nothing changed.
    """
    objects = None if nsa.background is None else tuple(_object(image, nsa.background) for image in (normal, other))
    pasted, inside = normal, np.zeros(normal.shape[:2], np.uint8)
    for number in range(nsa.patches):
        if number > 0 and rng.random() < 0.5:
            continue
        found = _paste(rng, pasted, other, objects, nsa)
        if found is not None:
            pasted, place, outline = found
            inside[place] = outline
    change = cv2.absdiff(pasted, normal).sum(axis=2, dtype=np.int32)
    label = inside & (change > 3 * LABEL_FROM).astype(np.uint8)
    return pasted, np.asarray(cv2.medianBlur(label, LABEL_MEDIAN), np.uint8)


def half_side(rng: np.random.Generator, side: int, bounds: Bounds) -> int:
    """Pixels of half a patch's side in a picture's side."""
    least, most = _pixels(side, bounds)
    return int(np.clip((GAMMA_OFFSET + rng.gamma(GAMMA_SHAPE, GAMMA_SCALE)) * side, least, most))


def resized(rng: np.random.Generator, patch: Size, picture: Size, nsa: Nsa) -> Size:
    """What size a patch gets: another one of its aspect, each side within the bounds of half a side."""
    rows, columns = _pixels(picture[0], nsa.rows), _pixels(picture[1], nsa.columns)
    factor = np.clip(rng.normal(1, RESIZE_DEVIATION), *nsa.factors)
    height = float(np.clip(factor * patch[0], *rows))
    width = int(np.clip(int(height / patch[0] * patch[1]), *columns))
    return int(np.clip(int(width / patch[1] * patch[0]), *rows)), width


def _paste(
    rng: np.random.Generator, picture: Image, other: Image, objects: tuple[Mask, ...] | None, nsa: Nsa
) -> tuple[Image, Place, Mask] | None:
    """The picture with a patch, where that is, and where in it an object is or was; None if it has no place."""
    size = (picture.shape[0], picture.shape[1])
    window = _source(rng, size, None if objects is None else objects[1], nsa)
    if window is None:
        return None
    patch = other[window]
    height, width = resized(rng, (patch.shape[0], patch.shape[1]), size, nsa)
    if min(height, width) < SMALLEST_SIDE:
        return None
    patch = np.asarray(cv2.resize(patch, (width, height)), np.uint8)
    outline = np.ones((height, width), np.uint8)
    for _ in range(MOST_TRIES):
        middle = [
            int(rng.integers(own // 2 + 1, side - own // 2 - 1))
            for own, side in zip((height, width), size, strict=True)
        ]
        top, left = middle[0] - height // 2, middle[1] - width // 2
        place = (slice(top, top + height), slice(left, left + width))
        if objects is None:
            break
        here = objects[0][place]
        comes = np.asarray(cv2.resize(objects[1][window], (width, height)), np.uint8)
        if comes.mean() > nsa.object_share and np.count_nonzero(here & comes) > nsa.overlap * np.count_nonzero(comes):
            outline = here | comes
            break
    else:
        return None
    # All but the outermost pixels, background too, which is alike in both pictures: a border within it would smear.
    blended = np.zeros((height, width), np.uint8)
    blended[1:-1, 1:-1] = 255
    mode = cv2.MIXED_CLONE if nsa.mixed else cv2.NORMAL_CLONE
    pasted = cv2.seamlessClone(patch, picture, blended, (middle[1], middle[0]), mode)
    return np.asarray(pasted, np.uint8), place, outline


def _source(rng: np.random.Generator, size: Size, source_object: Mask | None, nsa: Nsa) -> Place | None:
    """Where in the other picture a patch comes from, cut at the picture's border; None if no object is found."""
    bounds = (nsa.rows, nsa.columns)
    halves = [half_side(rng, side, own) for side, own in zip(size, bounds, strict=True)]
    for _ in range(MOST_TRIES):
        window = []
        for half, side, own in zip(halves, size, bounds, strict=True):
            least = _pixels(side, own)[0]
            middle = int(rng.integers(least, side - least))
            window.append(slice(max(middle - half, 0), min(middle + half, side)))
        place = (window[0], window[1])
        if source_object is None or source_object[place].mean() > nsa.object_share:
            return place
    return None


def _object(image: Image, background: tuple[int, int]) -> Mask:
    """(H, W), 1 where a picture is not its background."""
    level, tolerance = background
    differs = np.abs(image.mean(axis=2) - level) > tolerance
    return np.asarray(cv2.medianBlur(differs.astype(np.uint8), OBJECT_MEDIAN), np.uint8)


def _pixels(side: int, bounds: Bounds) -> tuple[int, int]:
    return round(bounds[0] * side), round(bounds[1] * side)
