"""A kept model says what it was trained with, and is refused where something else is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.alternatives.keeping import Training, find_kept, keep, pictures_hash, training_of
from stlm_edge.errors import DataError

TRAINING = Training(
    method="fastflow",
    backbone="random",
    input_size=(64, 64),
    seed=3,
    coreset=None,
    pictures="abc",
    minutes=1.5,
    epochs=2,
    steps=9,
    anomalib="2.7.0",
)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    path = tmp_path / "models" / "fastflow.safetensors"
    keep(path, torch.nn.Linear(2, 2), TRAINING)
    return path


def test_kept_model_says_how_it_came_to_be(kept: Path) -> None:
    assert training_of(kept) == TRAINING
    longer = replace(TRAINING, minutes=0.0, epochs=0, steps=0, anomalib="3.0")
    assert find_kept(kept, longer) == TRAINING
    assert find_kept(kept.with_name("padim.safetensors"), TRAINING) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pictures": "xyz"}, "training pictures abc instead of xyz"),
        ({"backbone": "published"}, "--backbone random instead of published"),
        ({"seed": 4, "input_size": (32, 32)}, "--seed 3 instead of 4"),
        ({"coreset": 0.1}, "--coreset None instead of 0.1"),
    ],
)
def test_model_of_another_training_is_refused(kept: Path, change: dict[str, object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        find_kept(kept, replace(TRAINING, **change))


def test_files_that_are_no_kept_models_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "fastflow.safetensors"
    path.write_bytes(b"no tensors")
    with pytest.raises(DataError, match="is no model kept"):
        training_of(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(DataError, match="is no model kept"):
        training_of(path)
    keep(path, torch.nn.Linear(2, 2), replace(TRAINING, method="magic"))
    with pytest.raises(DataError, match="'magic'"):
        training_of(path)


def test_hash_is_of_the_pictures_and_not_of_where_they_lie(tmp_path: Path) -> None:
    for folder, content in (("one", b"12"), ("two", b"34"), ("other", b"567")):
        (tmp_path / folder / "good").mkdir(parents=True)
        (tmp_path / folder / "good" / "a.png").write_bytes(content)
    one, two, other = (pictures_hash([tmp_path / name / "good" / "a.png"]) for name in ("one", "two", "other"))
    assert one == two != other
