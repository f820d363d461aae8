"""Our network stands beside them with the figures that the toolkit's own evaluation gives it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from benchmarks.alternatives.comparing import Comparison
from benchmarks.alternatives.judging import judge
from benchmarks.alternatives.ours import Checkpoint, Engine, is_made_from
from benchmarks.gabor_knn import judge_by_model
from benchmarks.intervals import exact_figures
from benchmarks.record import Recorder
from stlm_edge.datasets import load_category
from stlm_edge.errors import CheckpointError
from stlm_edge.network.checkpoint import load

from ...export.tiny import checkpoint
from ...runtime.conftest import SPEC, write_engine


def test_checkpoint_has_the_figures_of_the_evaluation(ground: Path, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "model.safetensors")
    category = load_category(ground, None)
    expected = judge_by_model(path, category, [str(sample.path) for sample in category.test])
    with Checkpoint(path).open() as method:
        found = list(judge(method, category.test))
        assert method.facts.parameters == 956_529
    for one, other in zip(found, expected, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-6)
        assert np.allclose(one.anomaly_map, other.anomaly_map, atol=1e-6)
    assert exact_figures(found).image_auroc == exact_figures(expected).image_auroc


def test_engine_of_the_same_weights_says_what_its_checkpoint_says(ground: Path, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "model.safetensors")
    spec = dataclasses.replace(SPEC, weights_sha256=load(path).spec.weights_sha256)
    engine = write_engine(tmp_path / "stlm.onnx", spec=spec)
    comparison = Comparison(load_category(ground, None), Recorder("alternatives", "a command", None))
    comparison.add_ours(path, engine)
    trained, deployed = (row.to_dict() for row in comparison.rows)
    assert (trained["name"], deployed["name"]) == ("STLM (PyTorch)", "STLM (onnx, fp32)")
    assert deployed["parameters"] == trained["parameters"] == 956_529
    assert deployed["image_auroc"] is not None
    assert deployed["model_mb"] == pytest.approx(engine.stat().st_size / 1e6)


def test_engine_of_other_weights_says_nothing_of_the_checkpoint(ground: Path, tmp_path: Path) -> None:
    path, engine = checkpoint(tmp_path / "model.safetensors"), write_engine(tmp_path / "plate.onnx")
    assert not is_made_from(engine, path)
    with Engine(engine).open() as method:
        assert method.facts.parameters is None
        verdict = method.inspect(np.full((96, 192, 3), 50, np.uint8))
    assert verdict.stages_ms["total"] == pytest.approx(verdict.stages_ms["prepare"] + verdict.stages_ms["infer"])


def test_missing_checkpoint_ends_the_program_before_any_training(ground: Path, tmp_path: Path) -> None:
    comparison = Comparison(load_category(ground, None), Recorder("alternatives", "a command", None))
    with pytest.raises(CheckpointError):
        comparison.add_ours(tmp_path / "none.safetensors", None)
