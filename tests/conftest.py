"""Fixtures that several folders of tests share."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

GOLDEN = Path(__file__).parent / "golden"

FormulaWeights = Callable[[str, str], dict[str, np.ndarray]]


@pytest.fixture(scope="session")
def expected() -> dict[str, Any]:
    """All scalar expectations of the golden fixtures."""
    return json.loads((GOLDEN / "expected.json").read_text())


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """Loads one fixture file by name."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz") as file:
            return dict(file)

    return load


@pytest.fixture(scope="session")
def formula_weights() -> FormulaWeights:
    """Makes the tensors of one group of `weights.json` by its formula, with a prefix."""
    groups = json.loads((GOLDEN / "weights.json").read_text())

    def make(group: str, prefix: str) -> dict[str, np.ndarray]:
        tensors = {}
        for entry in groups[group]:
            seed = zlib.crc32((prefix + entry["name"]).encode())
            uniform = np.random.Generator(np.random.PCG64(seed)).random(int(np.prod(entry["shape"])))
            tensors[entry["name"]] = (entry["offset"] + entry["amplitude"] * (2 * uniform - 1)).reshape(entry["shape"])
        return tensors

    return make
