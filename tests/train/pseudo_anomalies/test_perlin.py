"""Pseudo anomalies against the golden fixtures (section 8) and the authors' parameters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from train.pseudo_anomalies import perlin as synthesis
from train.pseudo_anomalies.perlin import blend, perlin_gradients, perlin_noise, rotate_noise, synthesise

PERLIN = dict(np.load(Path(__file__).parents[2] / "golden" / "perlin.npz"))


def pictures(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    normal = rng.integers(0, 128, (*size, 3), dtype=np.uint8)
    return normal, rng.integers(128, 256, (*size, 3), dtype=np.uint8)


def test_noise_meets_the_golden_values() -> None:
    noise = perlin_noise(PERLIN["gradients_4x8"], (256, 256))
    assert np.abs(noise - PERLIN["noise_4x8"]).max() < 2e-6
    assert np.array_equal(noise > synthesis.NOISE_THRESHOLD, PERLIN["mask_4x8"] != 0)


@pytest.mark.parametrize("lattice", ["1x1", "32x2", "2x16"])
def test_noise_on_other_lattices_meets_the_golden_values(lattice: str) -> None:
    noise = perlin_noise(PERLIN[f"gradients_{lattice}"], (256, 256))
    assert np.abs(noise[::5, ::5] - PERLIN[f"noise_{lattice}_stride5"]).max() < 2e-6


def test_noise_of_a_picture_that_is_not_square_meets_the_golden_values() -> None:
    noise = perlin_noise(PERLIN["gradients_64x96"], (64, 96))
    assert np.abs(noise - PERLIN["noise_64x96_res4x2"]).max() < 2e-6


def test_noise_is_defined_where_the_lattice_does_not_divide_the_picture() -> None:
    noise = perlin_noise(perlin_gradients(np.random.default_rng(0), (32, 8)), (101, 77))
    assert noise.shape == (101, 77)
    assert noise.dtype == np.float32
    assert np.abs(noise).max() <= 1
    assert noise.std() > 0.1


def test_gradients_are_unit_vectors_one_more_than_cells() -> None:
    gradients = perlin_gradients(np.random.default_rng(0), (4, 2))
    assert gradients.shape == (5, 3, 2)
    assert np.allclose(np.linalg.norm(gradients, axis=-1), 1)


@pytest.mark.parametrize(("angle", "name"), [(30.0, "p30"), (-75.0, "m75")])
def test_rotated_noise_meets_the_golden_values(angle: float, name: str) -> None:
    rotated = rotate_noise(perlin_noise(PERLIN["gradients_4x8"], (256, 256)), angle)
    assert np.abs(rotated[::3, ::3] - PERLIN[f"noise_4x8_rotated_{name}"]).max() < 0.02
    mask = rotated > synthesis.NOISE_THRESHOLD
    assert np.count_nonzero(mask != (PERLIN[f"mask_4x8_rotated_{name}"] != 0)) <= 30


def test_rotation_keeps_the_size_of_a_picture_that_is_not_square_and_fills_with_zero() -> None:
    rotated = rotate_noise(np.ones((64, 96), np.float32), 90)
    assert rotated.shape == (64, 96)
    assert np.all(rotated[:, :15] == 0)
    assert np.allclose(rotated[1:-1, 48], 1)


def test_blending_is_exact() -> None:
    for beta, expected in zip(PERLIN["blend_betas"], PERLIN["blend_expected"], strict=True):
        blended = blend(PERLIN["blend_normal"], PERLIN["blend_texture"], PERLIN["blend_mask"], float(beta))
        assert np.array_equal(blended, expected)


def test_same_seed_gives_the_same_anomaly() -> None:
    normal, texture = pictures((128, 128))
    first, again = (synthesise(np.random.default_rng(5), normal, texture) for _ in range(2))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])


def test_picture_changes_on_the_mask_and_nowhere_else() -> None:
    normal, texture = pictures((128, 192))
    before = normal.copy()
    rng = np.random.default_rng(1)
    for _ in range(20):
        image, mask = synthesise(rng, normal, texture)
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 1}
        changed = (image != normal).any(axis=2)
        assert not changed[mask == 0].any()
        assert changed[mask == 1].mean() > 0.95 if mask.any() else not changed.any()
    assert np.array_equal(normal, before)


def test_parameters_cover_the_ranges_of_the_authors(monkeypatch: pytest.MonkeyPatch) -> None:
    lattices: list[tuple[int, int]] = []
    angles: list[float] = []
    betas: list[float] = []
    monkeypatch.setattr(
        synthesis,
        "perlin_gradients",
        lambda rng, res: [lattices.append(res), perlin_gradients(rng, res)][1],
    )
    monkeypatch.setattr(synthesis, "rotate_noise", lambda noise, angle: [angles.append(angle), noise][1])
    monkeypatch.setattr(
        synthesis,
        "blend",
        lambda normal, texture, mask, beta: [betas.append(beta), normal][1],
    )
    normal, texture = pictures((1024, 1024))
    rng = np.random.default_rng(3)
    for _ in range(600):
        synthesise(rng, normal, texture)
    scales = [1, 2, 4, 8, 16, 32]
    assert set(lattices) == {(rows, columns) for rows in scales for columns in scales}
    for values, (low, high) in ((angles, (-90, 90)), (betas, (0, 0.8))):
        margin = 0.02 * (high - low)
        assert low <= min(values) < low + margin
        assert high - margin < max(values) <= high


def test_below_1024_pixels_no_noise_cell_is_smaller_than_two_cells_of_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    lattices: list[tuple[int, int]] = []
    monkeypatch.setattr(
        synthesis,
        "perlin_gradients",
        lambda rng, res: [lattices.append(res), perlin_gradients(rng, res)][1],
    )
    normal, texture = pictures((256, 512))
    rng = np.random.default_rng(3)
    for _ in range(150):
        synthesise(rng, normal, texture)
    assert set(lattices) == {(rows, columns) for rows in (1, 2, 4, 8) for columns in (1, 2, 4, 8)}
