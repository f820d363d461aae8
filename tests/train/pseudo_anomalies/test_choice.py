"""Scars, seamless patches, and the choice between kinds."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch

from stlm_edge.errors import ConfigError
from stlm_edge.imaging import read_image
from stlm_edge.plate.part import render_part
from tests.settings import TWO_STREAMS
from train.__main__ import main
from train.objective import any_in_cell, shrink_mask
from train.pseudo_anomalies.choice import CUT, PAIRED, PseudoAnomalies
from train.pseudo_anomalies.hiding import seamless_patches
from train.pseudo_anomalies.perlin import scar
from train.pseudo_anomalies.preview import preview
from train.pseudo_anomalies.textures import ProceduralTextures


@pytest.fixture(scope="module")
def parts():
    rng = np.random.default_rng(0)
    return [render_part(rng, size=(128, 160), defect=None).image for _ in range(4)]


def kinds_of(parts, *kinds: str, probability: float = 1.0, **settings) -> PseudoAnomalies:
    return PseudoAnomalies(
        kinds, images=parts, textures=ProceduralTextures(), probability=probability, largest_beta=0.5, **settings
    )


def test_scars_are_thin_and_change_nothing_beside_them(parts):
    rng = np.random.default_rng(1)
    texture = np.full_like(parts[0], 255)
    for _ in range(20):
        image, mask = scar(rng, parts[0], texture, largest_beta=0.5)
        assert np.array_equal(image[mask == 0], parts[0][mask == 0])
        thickness = cv2.distanceTransform(mask, cv2.DIST_L2, 3).max()
        assert thickness <= 2 * 0.025 * 128  # two scars may cross


def test_seamless_patches_mark_what_they_changed_visibly(parts):
    rng = np.random.default_rng(2)
    inside, outside = [], []
    for _ in range(30):
        before = parts[0].copy()
        image, mask = seamless_patches(rng, parts[0], parts[1])
        assert np.array_equal(parts[0], before)
        change = cv2.absdiff(image, parts[0]).max(axis=2)
        assert mask.any()  # these parts are structured enough for every picture to get one
        inside.extend(change[mask == 1])
        outside.extend(change[mask == 0])
    assert np.mean(np.array(inside) > 25) > 0.75  # the median rounds the outlines
    assert np.mean(np.array(outside) > 25) < 0.01


def test_seamless_patch_of_the_same_grey_is_no_anomaly():
    flat = np.full((64, 64, 3), 128, np.uint8)
    image, mask = seamless_patches(np.random.default_rng(3), flat, flat)
    assert np.array_equal(image, flat)
    assert not mask.any()


def test_dark_rough_pictures_get_seamless_patches_too():
    """Grey levels around 60 with a contrast of 10: few changes amount to the 25 levels that stand out elsewhere."""
    rng = np.random.default_rng(7)
    tiles = []
    for _ in range(4):
        clouds = cv2.GaussianBlur(rng.normal(0, 1, (256, 256)), (0, 0), 12)
        level = 60 + 9 * clouds / clouds.std() + rng.normal(0, 3, (256, 256))
        tiles.append(np.repeat(np.clip(level, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2))
    shares = []
    for _ in range(20):
        image, mask = seamless_patches(rng, tiles[0], tiles[1])
        if mask.any():
            shares.append(mask.mean())
            change = cv2.absdiff(cv2.blur(image, (5, 5)), cv2.blur(tiles[0], (5, 5)))
            assert change[mask == 1].mean() > 8
    assert len(shares) >= 18
    assert 0.001 < np.median(shares) < 0.1


def test_rough_surface_in_place_of_rough_surface_is_no_anomaly():
    rng = np.random.default_rng(8)
    rough = [rng.normal(100, 4, (256, 256, 1)).repeat(3, axis=2).astype(np.uint8) for _ in range(2)]
    for _ in range(5):
        assert not seamless_patches(rng, *rough)[1].any()


@pytest.mark.parametrize("side", [256, 1024])
def test_masks_of_seamless_patches_have_no_specks(side):
    rng = np.random.default_rng(9)
    pair = [render_part(rng, size=(side, side), defect=None).image for _ in range(2)]
    smallest = 24 * (side / 256) ** 2
    for _ in range(5):
        _, _, statistics, _ = cv2.connectedComponentsWithStats(seamless_patches(rng, *pair)[1])
        assert statistics[:, cv2.CC_STAT_AREA].min() > 0.7 * smallest


@pytest.mark.parametrize("size", [(32, 32), (64, 33), (33, 1024)])
def test_patches_fit_into_pictures_of_any_size(size):
    rng = np.random.default_rng(4)
    picture = rng.integers(0, 256, (*size, 3), np.uint8)
    for _ in range(50):
        image, mask = seamless_patches(rng, picture, picture[::-1].copy())
        assert image.shape == picture.shape
        assert mask.shape == size


def test_share_of_clean_pictures_is_as_asked(parts):
    rng = np.random.default_rng(5)
    pseudo = kinds_of(parts, "perlin", probability=0.5)
    clean = [pseudo.draw(rng, parts[0])[0] is parts[0] for _ in range(400)]
    assert 0.42 < np.mean(clean) < 0.58


def test_empty_ones_are_drawn_again_and_the_others_stay_as_they_are(parts):
    """Perlin noise often stays below 0.5 in a small picture."""
    small = [np.ascontiguousarray(part[:64, :64]) for part in parts]
    kept, redrawn = (kinds_of(small, "perlin", "scar", empty=empty, probability=0.8) for empty in ("keep", "redraw"))
    empty = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        wanted = rng.random() < 0.8
        before, now = (drawer.draw(np.random.default_rng(seed), small[0]) for drawer in (kept, redrawn))
        assert now[1].any() == wanted
        if wanted and not before[1].any():
            empty += 1
        else:
            assert np.array_equal(before[0], now[0])
            assert np.array_equal(before[1], now[1])
    assert 3 <= empty <= 30


def test_picture_that_takes_no_anomaly_stays_as_it_is_after_a_few_draws():
    black = np.zeros((64, 64, 3), np.uint8)
    drawer = kinds_of([black], "finish", empty="redraw")
    assert not drawer.draw(np.random.default_rng(0), black)[1].any()


def test_every_kind_is_drawn_and_a_single_one_alone(parts, monkeypatch):
    seen, mask = [], np.ones((128, 160), np.uint8)
    for name in ("synthesise", "scar"):
        monkeypatch.setattr(
            f"train.pseudo_anomalies.choice.{name}", lambda *_, name=name, **__: (seen.append(name), mask)
        )
    for table in (CUT, PAIRED):
        for name in table:
            monkeypatch.setitem(table, name, lambda *_, name=name: (seen.append(name), mask))
    rng = np.random.default_rng(6)
    for _ in range(90):
        kinds_of(parts, "perlin", "scar", "hiding").draw(rng, parts[0])
    assert min(seen.count(name) for name in ("synthesise", "scar", "hiding")) > 15
    seen.clear()
    for _ in range(150):
        kinds_of(parts, *CUT, *PAIRED).draw(rng, parts[0])
    assert min(seen.count(name) for name in (*CUT, *PAIRED)) > 10
    seen.clear()
    for _ in range(20):
        kinds_of(parts, "hiding").draw(rng, parts[0])
    assert set(seen) == {"hiding"}


def test_thin_line_stays_in_the_target_any_and_vanishes_from_the_centres():
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 3, 10:40] = 1
    assert any_in_cell(mask, (4, 4))[0, 0].tolist() == [[1, 1, 1, 0], [0] * 4, [0] * 4, [0] * 4]
    assert not shrink_mask(mask, (4, 4)).any()


def test_preview_shows_each_kind_in_the_users_own_pictures(plate, tmp_path, capsys):
    output = tmp_path / "sheets" / "preview.png"
    arguments = ["preview", "--data", str(plate), "--category", "plate", "--preset", TWO_STREAMS, "--image-size", "64"]
    assert main([*arguments, "--count", "2", "-o", str(output)]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    three_kinds = read_image(output).shape
    assert main([*arguments, "--count", "2", "-o", str(output), "--pseudo-anomalies", "hiding"]) == 0
    assert read_image(output).shape[0] < three_kinds[0] / 2
    assert main([*arguments, "-o", str(output), "--pseudo-anomalies", "cutpaste-union+cutpaste-scar"]) == 0
    assert main([*arguments[:3], "-o", "/dev/null/preview.png"]) == 1


def test_preview_shows_pictures_as_they_are_turned(plate, tmp_path, quick):
    settings = {"data": plate, "category": "plate", "textures": None, "count": 1}
    sheets = [
        read_image(preview(dataclasses.replace(quick, rotation=name), output=tmp_path / f"{name}.png", **settings))
        for name in ("none", "full")
    ]
    assert not np.array_equal(*sheets)
    with pytest.raises(ConfigError, match="'plate'"):
        preview(dataclasses.replace(quick, rotation="mvtec"), output=tmp_path / "s.png", **settings)
