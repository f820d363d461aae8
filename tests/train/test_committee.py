"""Several heads, each of which learns without another share of the parts: what of them scores which good picture."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from stlm_edge.datasets import Parts
from stlm_edge.errors import ConfigError
from stlm_edge.network.checkpoint import load
from stlm_edge.network.design import Design
from stlm_edge.network.encoder import ARCHITECTURES
from stlm_edge.network.feature_aggregation import Committee
from stlm_edge.network.inference import InferencePath
from stlm_edge.network.stlm import Stlm
from stlm_edge.spec import ModelSpec
from tests.settings import TWO_STREAMS
from train.__main__ import main
from train.config import TrainConfig
from train.data import Batch
from train.distributed import Processes
from train.evaluate import score_images
from train.good_pictures import GoodPictures
from train.left_out import ALL, Division, good_scores
from train.objective import Objective
from train.pseudo_anomalies.textures import texture_source
from train.record import Pictures

SIZE = (32, 64)
SPEC = ModelSpec("x", "stlm-tiny", SIZE, SIZE, weights_sha256="", highest_score=1.0)
CONFIG = TrainConfig(
    architecture="stlm-tiny",
    image_size=SIZE,
    teacher="stlm-tiny",
    teacher_weights="random",
    plain_stream="teacher",
    comparison="plain",
    heads=3,
    holdout=0.0,
    segmentation_loss="bce-dice",
)


def network(config: TrainConfig = CONFIG) -> Stlm:
    torch.manual_seed(0)
    return Stlm(ARCHITECTURES["stlm-tiny"], config.design, image_size=SIZE)


def drawn(folds: tuple[int, ...]) -> Batch:
    torch.manual_seed(1)
    clean = torch.randint(0, 256, (len(folds), *SIZE, 3), dtype=torch.uint8)
    mask = (torch.rand(len(folds), 1, *SIZE) > 0.9).float()
    return Batch(clean, clean, mask, (True,) * len(folds), (None,) * len(folds), folds)


def test_every_part_is_left_out_by_one_head():
    parts = [0, 0, 1, 2, 2, 3, 4, 5, 6, 6]
    division = Division.of(parts, CONFIG)
    assert (list(division.learnt), list(division.held)) == (list(range(10)), [])
    assert set(division.folds) == {0, 1, 2}
    fold_of = dict(zip(parts, division.folds, strict=True))
    assert [fold_of[part] for part in parts] == list(division.folds)
    assert sorted(np.bincount(list(fold_of.values())).tolist()) == [2, 2, 3]
    assert division.unlearnt(network()) == list(range(10))
    assert Division.of(parts, CONFIG).folds == division.folds
    assert Division.of(parts, dataclasses.replace(CONFIG, seed=1)).folds != division.folds


def test_where_some_are_held_out_they_count_too():
    division = Division.of(range(10), dataclasses.replace(CONFIG, holdout=0.3))
    assert len(division.held) == 3
    assert {division.folds[number] for number in division.held} == {ALL}
    assert division.unlearnt(network()) == list(range(10))


def test_with_one_head_only_those_held_out_are_new():
    config = dataclasses.replace(CONFIG, heads=1, holdout=0.2)
    division = Division.of(range(10), config)
    assert set(division.folds) == {ALL}
    assert division.unlearnt(network(config)) == list(division.held)


def test_map_is_the_mean_of_the_members():
    committee = Committee(3, inputs=5, channels=4).eval()
    seen = torch.randn(2, 5, 4, 6)
    wanted = torch.stack([member(seen) for member in committee.members]).mean(dim=0)
    assert torch.allclose(committee(seen), wanted, atol=1e-6)


def test_no_head_learns_from_what_it_leaves_out():
    objective = Objective(network(), CONFIG, spec=SPEC, teacher_channels=64).train()
    committee = objective.network.feature_aggregation
    assert isinstance(committee, Committee)
    before = [member.res[0].norm1.running_mean.clone() for member in committee.members]
    objective(drawn((1, 1, 1)), None).total.backward()
    for number, (member, mean) in enumerate(zip(committee.members, before, strict=True)):
        learns = number != 1
        assert any(p.grad is not None and bool(p.grad.abs().max() > 0) for p in member.parameters()) is learns
        assert torch.equal(member.res[0].norm1.running_mean, mean) is not learns


def test_heads_of_a_mixed_step_learn_from_their_own_pictures():
    objective = Objective(network(), CONFIG, spec=SPEC, teacher_channels=64).train()
    committee, batch = objective.network.feature_aggregation, drawn((0, 1, 2, 1))
    assert isinstance(committee, Committee)
    whole = objective(batch, None)
    whole.total.backward()
    found = committee.members[1].head.out.bias.grad.clone()
    objective.zero_grad(set_to_none=True)
    with torch.no_grad():
        seen = objective.network.plain_features(*objective.network.plain.maps(_pixels(batch)))
    own = [0, 2]
    (objective.segmentation(committee.members[1](seen[own]), batch.mask[own]) / 3).backward()
    assert torch.allclose(found, committee.members[1].head.out.bias.grad, atol=1e-6)


def _pixels(batch: Batch) -> torch.Tensor:
    from stlm_edge.network.inference import prepare

    return prepare(batch.pseudo, SPEC)


def test_good_picture_is_scored_by_the_head_that_has_not_learnt_from_it():
    inspector = InferencePath(network(), SPEC).eval()
    committee = inspector.network.feature_aggregation
    assert isinstance(committee, Committee)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8) for _ in range(6)]
    division = Division.of(range(6), CONFIG)
    found = good_scores(inspector, images, division)
    assert inspector.network.feature_aggregation is committee
    for number, member in enumerate(committee.members):
        own = [picture for picture, fold in enumerate(division.folds) if fold == number]
        inspector.network.feature_aggregation = member
        wanted = score_images(inspector, [images[picture] for picture in own])
        assert [found[picture] for picture in own] == pytest.approx(wanted, abs=1e-6)
    assert len(set(found.values())) == 6


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"heads": 0}, "heads is 0, expected 1 to 16"),
        ({"heads": 17}, "heads is 17, expected 1 to 16"),
        ({"comparison": "product"}, "heads, comparison: several heads see what a frozen stream sees: plain"),
        ({"folds": 2}, "heads, folds: the heads are the folds"),
        ({"heads": 1}, "holdout is 0.0, expected more than 0 and less than 1"),
        ({"patience": 3}, "holdout is 0.0, expected more than 0 and less than 1"),
        ({"holdout": -0.1}, "holdout is -0.1, expected 0 or more and less than 1"),
    ],
)
def test_settings_that_cannot_work_together_are_refused(changed, words):
    with pytest.raises(ConfigError, match=words):
        dataclasses.replace(CONFIG, **changed)


def test_design_of_two_streams_has_one_head():
    with pytest.raises(ConfigError, match="heads is 2, expected 1 but for comparison plain"):
        Design(heads=2)
    assert dataclasses.replace(CONFIG, epochs=0, memory=10).design.heads == 1


def test_several_processes_do_not_train_a_committee():
    data = GoodPictures(
        "x",
        Pictures(2, ""),
        [np.zeros((*SIZE, 3), np.uint8)] * 2,
        "",
        Parts.one_by_one(2, how="as drawn"),
        Division.of(range(2), CONFIG),
        texture_source(None),
        "none",
    )
    with pytest.raises(ConfigError, match="heads is 3 in a training of 2 processes, expected 1"):
        data.batches([0, 1], CONFIG, Processes(0, 2))


@pytest.mark.heavy
def test_threshold_of_a_run_is_from_all_good_pictures_and_is_found_again(plate, tmp_path, capsys):
    run, data = tmp_path / "run", ["--data", str(plate), "--category", "plate"]
    heads = ["--comparison", "plain", "--heads", "3", "--holdout", "0", "--memory", "60", "--teacher", "stlm-tiny"]
    frozen = ["--teacher-weights", "random", "--plain-stream", "teacher", "--initial-weights", "random"]
    quick = ["--preset", TWO_STREAMS, "--image-size", "64", "--batch-size", "2", "--epochs", "1"]
    assert main(["fit", *data, "-o", str(run), *heads, *frozen, *quick]) == 0
    assert "each without another share of" in capsys.readouterr().err
    loaded = load(run / "model.safetensors")
    threshold = loaded.spec.require_threshold()
    assert threshold.images == len(list((plate / "plate/train/good").iterdir()))
    assert main(["threshold", str(run / "model.safetensors"), *data]) == 0
    assert load(run / "model.safetensors").spec.require_threshold().value == pytest.approx(threshold.value, abs=1e-6)
