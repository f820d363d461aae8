"""Any method is judged and timed by what it says of frames; rows and table say what is known and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.turns import Schedule

from benchmarks.alternatives import comparing
from benchmarks.alternatives.comparing import Comparison, Recipe, require_both_kinds
from benchmarks.alternatives.inspecting import Facts, Verdict, stages
from benchmarks.alternatives.judging import judge
from benchmarks.alternatives.methods import METHODS
from benchmarks.alternatives.table import Row, table
from benchmarks.intervals import exact_figures
from benchmarks.record import Recorder, read
from stlm_edge.datasets import Category, load_category
from stlm_edge.errors import DataError, StlmError
from stlm_edge.imaging import Image

SMALL = (24, 20)
"""Of the fake's maps; the pictures have 96 x 80."""


@dataclass(frozen=True)
class Brightness:
    """A fake method that finds bright places; `sign` -1 makes it find the others."""

    name: str = "brightness"
    sign: float = 1.0
    scale: float = 1.0

    @property
    def facts(self) -> Facts:
        return Facts(self.name, "numpy", None, None, SMALL, parameters=0, model_mb=0.5, note="a fake")

    @contextmanager
    def open(self) -> Iterator[Brightness]:
        yield self

    def inspect(self, image: Image) -> Verdict:
        grey = np.asarray(image[::4, ::4, 0], np.float32) * np.float32(self.sign * self.scale)
        return Verdict(grey, float(grey.max()), stages(0.0, 0.001, 0.004))


def recorder(path: Path | None = None) -> Recorder:
    return Recorder("alternatives", "a command", path)


def test_figures_are_those_of_the_pictures_own_pixels(ground: Path) -> None:
    judged = list(judge(Brightness(), load_category(ground, None).test))
    assert [picture.anomaly_map.shape for picture in judged] == [(96, 80)] * 6
    figures = exact_figures(judged)
    assert figures.image_auroc == 1
    assert figures.pixel_auroc > 0.95
    assert 0.9 < figures.aupro <= 1
    assert figures.pixel_ap > 0.75
    worst = exact_figures(list(judge(Brightness(sign=-1), load_category(ground, None).test)))
    assert worst.pixel_auroc < 0.05


def test_score_that_is_no_number_is_refused(ground: Path) -> None:
    with pytest.raises(StlmError, match="NaN"):
        exact_figures(list(judge(Brightness(scale=math.nan), load_category(ground, None).test)))


def test_rows_are_saved_one_by_one_and_timed_in_turns(ground: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    comparison = Comparison(load_category(ground, None), recorder(path))
    comparison.add(Brightness())
    saved = read(path)
    assert not saved.is_complete
    (row,) = saved.details["methods"]
    assert (row["image_auroc"], row["p50_ms"], row["running_mb"]) == (1.0, None, None)
    comparison.add(Brightness("dullness", sign=-1))
    comparison.time(Schedule(turns=2, runs=2, settle=0))
    saved = read(path)
    assert [row["name"] for row in saved.details["methods"]] == ["brightness", "dullness"]
    assert saved.measures["dullness total p50"].values == pytest.approx((4, 4))
    row = saved.details["methods"][0]
    assert row["p50_ms"] == row["p95_ms"] == pytest.approx(4)
    assert row["running_mb"] > 10
    assert set(row) == {
        "name", "library", "backbone", "pretrained", "input_size", "parameters", "train_minutes", "image_auroc",
        "pixel_auroc", "aupro", "pixel_ap", "p50_ms", "p95_ms", "running_mb", "model_mb", "note",
    }  # fmt: skip


def test_method_that_fails_says_why_in_its_row_and_stops_no_other(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(method: Any, *_: Any) -> Path:
        raise RuntimeError(f"no memory\nfor {method.name}")

    monkeypatch.setattr(comparing, "trained", trained)
    monkeypatch.setattr(comparing.metadata, "version", lambda _: "2.7.0")
    comparison = Comparison(load_category(ground, None), recorder())
    recipe = Recipe("random", (64, 64), None, minutes=1, coreset=0.1, seed=0, models=tmp_path)
    comparison.add_method(METHODS["padim"], recipe)
    assert comparison.failed == ["PaDiM"]
    comparison.time(Schedule(turns=1, runs=1, settle=0))  # there is nothing to time yet
    assert comparison.rows[0].timed is None
    comparison.add(Brightness())
    comparison.time(Schedule(turns=1, runs=1, settle=0))
    failed, done = (row.to_dict() for row in comparison.rows)
    assert failed["note"] == "failed: RuntimeError: no memory for padim"
    assert failed["image_auroc"] is failed["p50_ms"] is failed["parameters"] is None
    assert done["p50_ms"] is not None


def test_table_has_what_is_known(ground: Path) -> None:
    row = Row(Facts("A", "lib 1", "net", "ImageNet", (32, 64), parameters=2_500_000, note="look out"))
    text = table([row, Row(Facts("B", "lib 2", None, None, (32, 32)))])
    head, first, *_ = text.splitlines()
    assert first.split()[0] == "A"
    assert first.split()[1:7] == ["-"] * 6
    assert "2.50" in first
    assert "A: 32 x 64; lib 1; net, ImageNet; look out" in text
    assert "B: 32 x 32; lib 2; no backbone" in text
    assert "image AUROC" in head


def test_data_without_defects_is_refused(ground: Path) -> None:
    loaded = load_category(ground, None)
    good = tuple(sample for sample in loaded.test if sample.label == "good")
    with pytest.raises(DataError, match="3 good and 0 defective"):
        require_both_kinds(Category("ground", loaded.train, good))
