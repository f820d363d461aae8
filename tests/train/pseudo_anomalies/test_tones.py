from __future__ import annotations

import cv2
import numpy as np
import pytest

from train.pseudo_anomalies.tones import cracks, finish, pits

SIZE = (96, 128)


def surface(seed: int, *, light: float = 1.0, size=SIZE) -> np.ndarray:
    """A ground surface with vertical grain."""
    grain = np.random.default_rng(seed).normal(0, 12, (1, size[1])) + np.random.default_rng(seed).normal(0, 4, size)
    return np.repeat(np.clip(light * (110 + grain), 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def drawn(kind, count: int, **changes):
    rng = np.random.default_rng(0)
    for seed in range(count):
        normal = surface(seed, **changes)
        others = (surface(seed + 100, **changes),) if kind is finish else ()
        yield normal, *kind(rng, normal, *others)


@pytest.mark.parametrize("kind", [finish, pits, cracks])
@pytest.mark.parametrize("size", [SIZE, (64, 64)])
def test_mask_covers_what_changed_and_the_picture_given_stays(kind, size):
    for index, (normal, image, mask) in enumerate(drawn(kind, 20, size=size)):
        assert image.shape == normal.shape
        assert image.dtype == mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 1}
        assert np.array_equal(normal, surface(index, size=size))
        change = cv2.absdiff(image, normal).max(axis=2)
        if mask.any():
            assert change[mask != 0].mean() > 4
            far = cv2.dilate(mask, np.ones((31, 31), np.uint8)) == 0  # a soft border reaches out
            assert not far.any() or change[far].mean() < change[mask != 0].mean() / 10
        else:
            assert not change.any()


def test_finish_changes_large_regions_of_every_area():
    areas = np.array([mask.mean() for _, _, mask in drawn(finish, 60)])
    areas = areas[areas > 0]
    assert areas.size > 40
    assert areas.max() < 0.5
    assert np.median(areas) > 0.1
    assert areas.min() < 0.1


def test_finish_leaves_tone_or_grain_as_it_is_now_and_then():
    tone, grain = [], []
    for normal, image, mask in drawn(finish, 60):
        if mask.sum() > 500:
            before, after = (picture[mask != 0].astype(float)[:, 0] for picture in (normal, image))
            tone.append(after.mean() / before.mean())
            grain.append(after.std() / before.std())
    assert sum(0.95 < factor < 1.05 for factor in tone) > 5
    assert sum(factor > 1.2 for factor in tone) > 5
    assert sum(factor < 0.8 for factor in tone) > 5
    assert sum(factor > 1.5 for factor in grain) > 5
    assert sum(factor < 0.5 for factor in grain) > 2


@pytest.mark.parametrize("kind", [pits, cracks])
def test_pits_and_cracks_are_small_and_darker_by_a_share_of_the_light(kind):
    losses = {}
    for light in (0.3, 1.5):
        for normal, image, mask in drawn(kind, 40, light=light):
            if mask.any():
                assert mask.mean() < 0.05
                before, after = (picture[mask != 0].astype(float).mean() for picture in (normal, image))
                assert after < before
                losses.setdefault(light, []).append(1 - after / before)
    assert np.mean(losses[0.3]) == pytest.approx(np.mean(losses[1.5]), abs=0.03)


@pytest.mark.parametrize("kind", [finish, pits, cracks])
def test_seed_decides(kind):
    first, again = (list(drawn(kind, 3)) for _ in range(2))
    assert all(np.array_equal(a[1], b[1]) and np.array_equal(a[2], b[2]) for a, b in zip(first, again, strict=True))


def test_finish_of_a_black_picture_stays_empty():
    black = np.zeros((64, 64, 3), np.uint8)
    image, mask = finish(np.random.default_rng(0), black, black)
    assert not image.any()
    assert not mask.any()
