"""What a step does: mixed precision, added-up gradients, early stopping, memory, what TensorBoard shows."""

from __future__ import annotations

import dataclasses
import json
import os
import signal

import numpy as np
import pytest
import torch

from stlm_edge.datasets import Parts
from stlm_edge.errors import ConfigError
from stlm_edge.network.checkpoint import load
from stlm_edge.network.encoder import ARCHITECTURES
from stlm_edge.network.stlm import Stlm
from stlm_edge.spec import ModelSpec
from train.config import TrainConfig
from train.data import Batches
from train.fit import fit, resume
from train.loop import Ending, train
from train.objective import Objective
from train.pseudo_anomalies.choice import PseudoAnomalies
from train.pseudo_anomalies.textures import ProceduralTextures
from train.record import Pictures, Sources, read_record, write_record
from train.teaching.guidance import Guidance
from train.teaching.teacher import build_teacher
from train.training import begin
from train.watch import Patience

SPEC = ModelSpec("plate", "stlm-tiny", (64, 64), (64, 64), "")


@pytest.fixture
def images():
    return list(np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8))


def batches_of(images, batch_size):
    pseudo = PseudoAnomalies(
        ["perlin"], images=images, textures=ProceduralTextures(), probability=0.5, largest_beta=0.5
    )
    return Batches(images, pseudo_anomalies=pseudo, batch_size=batch_size, seed=0)


def records(config, images, **changes):
    """Losses of each epoch of a small training, and its network."""
    config = dataclasses.replace(config, **changes)
    batches = batches_of(images, config.batch_size)
    torch.manual_seed(0)
    network = Stlm(ARCHITECTURES["stlm-tiny"])
    teacher = build_teacher("stlm-tiny", weights="random", image_size=(64, 64))
    guidance = Guidance(teacher, spec=SPEC, layers="l1+l2", precision="fp32", compiled=False, cache=None)
    objective = Objective(network, config, spec=SPEC, teacher_channels=64)
    training = begin(objective, config, steps_per_epoch=len(batches))
    kept = []
    ending = train(training, guidance, batches, config=config, after_epoch=lambda record: bool(kept.append(record)))
    assert ending is Ending.FINISHED
    return kept, network


@pytest.mark.heavy
def test_empty_pseudo_anomalies_are_told_of_once(quick, images, caplog):
    caplog.set_level("INFO", logger="train.loop")
    batches = batches_of(images, quick.batch_size)
    tried, empty = (sum(getattr(batch, name) for batch in batches.epoch(1)) for name in ("tried", "empty"))
    assert empty
    records(quick, images, epochs=2)
    told = [record.getMessage() for record in caplog.records if record.name == "train.loop"]
    assert told == [
        f"of {tried} pseudo anomalies in the first epoch {empty} came out empty ({100 * empty / tried:.0f} %), and "
        "their pictures count as good; --empty-anomalies redraw draws others in their place"
    ]


@pytest.mark.heavy
def test_mixed_precision_has_the_same_losses_and_nearly_the_same_gradients(quick, images):
    """From the same weights; along a training both ways drift apart like two machines do."""
    found = {}
    for precision in ("fp32", "bf16"):
        config = dataclasses.replace(quick, precision=precision, segmentation_loss="focal-l1")
        torch.manual_seed(0)
        network = Stlm(ARCHITECTURES["stlm-tiny"])
        teacher = build_teacher("stlm-tiny", weights="random", image_size=(64, 64))
        guidance = Guidance(teacher, spec=SPEC, layers="l1+l2", precision="fp32", compiled=False, cache=None)
        batch = next(iter(batches_of(images, 8).epoch(1)))
        terms = Objective(network, config, spec=SPEC, teacher_channels=64)(batch, guidance(batch))
        terms.total.backward()
        gradients = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
        assert all(gradient.dtype == torch.float32 for gradient in gradients)
        found[precision] = (terms.values(), torch.cat(gradients))
    (exact, exact_gradient), (mixed, mixed_gradient) = found["fp32"], found["bf16"]
    assert torch.allclose(mixed, exact, rtol=5e-3)
    assert not torch.equal(mixed, exact)
    assert torch.cosine_similarity(mixed_gradient, exact_gradient, dim=0) > 0.95


@pytest.mark.heavy
def test_gradients_added_up_over_two_steps_are_those_of_twice_the_batch(quick, images):
    """But for the batch statistics, which are those of each step; the paper's losses are means over pictures."""
    settings = {"segmentation_loss": "focal-l1", "head_optimiser": "sgd", "epochs": 1, "learning_rate": 1e-4}
    _, small = records(quick, images, batch_size=4, accumulate=2, **settings)
    _, large = records(quick, images, batch_size=8, accumulate=1, **settings)
    _, other = records(quick, images, batch_size=4, accumulate=1, **settings)
    torch.manual_seed(0)
    begun = Stlm(ARCHITECTURES["stlm-tiny"])

    def moved(network):
        bias = "feature_aggregation.head.out.bias"
        return (network.state_dict()[bias] - begun.state_dict()[bias]).item()

    assert moved(small) == pytest.approx(moved(large), rel=0.05)
    assert abs(moved(other)) > 1.5 * abs(moved(large))


@pytest.mark.heavy
def test_what_is_left_at_the_end_of_an_epoch_moves_the_weights_too(quick, images):
    moves = []
    config = dataclasses.replace(quick, batch_size=2, accumulate=3, epochs=2)
    from train.training import Training

    original = Training.move
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "move", lambda self: (moves.append(1), original(self))[1])
        records(config, images)
    assert len(moves) == 4  # four steps an epoch: three together and one alone


@pytest.mark.heavy
def test_patience_ends_the_training_and_keeps_the_best_epoch(plate, tmp_path, quick, monkeypatch):
    losses = iter([3.0, 1.0, 2.0, 2.5, 0.1])
    monkeypatch.setattr("train.fit.held_out_error", lambda *_: next(losses))
    saved = []
    from train import fit as module

    original = module.save
    monkeypatch.setattr(module, "save", lambda path, made: (saved.append(made.spec), original(path, made)))
    config = dataclasses.replace(quick, epochs=20, patience=2)
    path = fit(config, data=plate, category="plate", textures=None, output=tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert [line["held_out"] for line in lines] == [3.0, 1.0, 2.0, 2.5]
    assert len(saved) == 3  # the first and second epoch, and the second one's weights again with a threshold
    assert load(path).spec.weights_sha256 == saved[1].weights_sha256 != saved[0].weights_sha256


@pytest.mark.heavy
def test_best_epoch_survives_ctrl_c_behind_it(plate, tmp_path, quick, monkeypatch):
    losses = iter([1.0, 2.0, 2.5])
    monkeypatch.setattr("train.fit.held_out_error", lambda *_: next(losses))
    saved = []
    from train import fit as module
    from train import loop

    original = module.save
    monkeypatch.setattr(module, "save", lambda path, made: (saved.append(made.spec), original(path, made)))
    config = dataclasses.replace(quick, epochs=20, patience=2, batch_size=2, workers=0)
    step, steps = loop._step, []

    def interrupted(*arguments, **options):
        steps.append(1)
        if options["step"] == 1 and len(saved) == 1 and len(list(losses_told())) == 2:
            signal.raise_signal(signal.SIGINT)
        return step(*arguments, **options)

    def losses_told():
        return (tmp_path / "run/history.jsonl").read_text().splitlines()

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_step", interrupted)
        path = fit(config, data=plate, category="plate", textures=None, output=tmp_path / "run")
    assert (tmp_path / "run/state.pt").exists()
    assert len(list(losses_told())) == 2
    best = saved[0].weights_sha256
    assert load(path).spec.weights_sha256 == best
    assert resume(tmp_path / "run") == path
    assert len(list(losses_told())) == 3
    assert load(path).spec.weights_sha256 == best


def test_patience_counts_what_a_resumed_run_has_seen():
    patience = Patience(2, [])
    assert [patience.improves(loss) for loss in (2.0, 1.0, 1.0, 1.5)] == [True, True, False, False]
    assert patience.over


@pytest.mark.heavy
def test_held_out_error_is_the_same_for_the_same_weights(plate, tmp_path, quick):
    """It is measured after each epoch, on pseudo anomalies that do not change, and falls while the network learns."""
    config = dataclasses.replace(quick, epochs=6, patience=50)
    for name in ("a", "b"):
        fit(config, data=plate, category="plate", textures=None, output=tmp_path / name)
    first, second = (
        [json.loads(line)["held_out"] for line in (tmp_path / name / "history.jsonl").read_text().splitlines()]
        for name in ("a", "b")
    )
    assert first == second
    assert min(first[1:]) < first[0]


@pytest.mark.heavy
def test_tensorboard_gets_losses_and_pictures(plate, tmp_path, quick):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = dataclasses.replace(quick, epochs=2, tensorboard=True, evaluate_every=2)
    fit(config, data=plate, category="plate", textures=None, output=tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"loss/plain", "loss/denoising", "loss/segmentation", "held_out/error", "speed/pictures_per_s"} <= set(
        tags["scalars"]
    )
    assert [event.step for event in events.Scalars("loss/plain")] == [1, 2]
    assert {tag for tag in tags["scalars"] if tag.startswith("test/")} == {
        f"test/{name}" for name in ("image_auroc", "pixel_auroc", "pixel_ap", "aupro")
    }
    assert [event.step for event in events.Scalars("test/aupro")] == [2]
    assert {tag.split("/")[0] for tag in tags["images"]} == {"pseudo_anomalies", "masks", "anomaly_maps"}


@pytest.mark.heavy
def test_missing_tensorboard_is_said_before_the_training(plate, tmp_path, quick, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        fit(
            dataclasses.replace(quick, tensorboard=True),
            data=plate,
            category="plate",
            textures=None,
            output=tmp_path / "run",
        )


def test_other_errors_are_not_taken_for_want_of_memory(quick, images, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(Stlm, "features", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        records(quick, images)


def test_run_folder_tells_how_it_was_made(trained_run, plate, quick):
    record = json.loads((trained_run / "run.json").read_text())
    assert record["data"] == str(plate)
    assert record["category"] == "plate"
    assert record["seed"] == quick.seed
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    line = json.loads((trained_run / "history.jsonl").read_text())
    assert line["pictures_per_s"] > 0
    assert line["memory_gb"] > 0


@pytest.mark.heavy
def test_package_that_came_another_way_has_no_version(monkeypatch, plate, tmp_path, quick):
    monkeypatch.setattr("train.record.PACKAGES", ("torch", "opencv-from-jetpack"))
    sources, pictures = Sources(plate, "plate", None), Pictures(0, "")
    write_record(
        tmp_path,
        quick,
        sources,
        pictures=pictures,
        parts=Parts.one_by_one(2, how="one by one"),
        taught_by=None,
        run_id="",
        device=torch.device("cpu"),
        processes=1,
    )
    versions = json.loads((tmp_path / "run.json").read_text())["versions"]
    assert versions["opencv-from-jetpack"] is None
    assert versions["torch"]


@pytest.mark.heavy
def test_run_on_folders_of_any_name_is_found_again(tmp_path):
    data = tmp_path / os.fsdecode(b"gr\xfc\n")
    weights = {"initial_weights": data / "start.safetensors"}
    sources = Sources(data, os.fsdecode(b"\\xe4\xe4"), data / "textures", weights)
    pictures = Pictures(0, "")
    write_record(
        tmp_path,
        TrainConfig(),
        sources,
        pictures=pictures,
        parts=Parts.one_by_one(2, how="one by one"),
        taught_by=None,
        run_id="",
        device=torch.device("cpu"),
        processes=1,
    )
    json.loads((tmp_path / "run.json").read_bytes())["data"].encode()
    assert read_record(tmp_path).sources == sources
