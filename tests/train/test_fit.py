"""Training from a folder of pictures to a checkpoint, through the command line where the user stands."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from stlm_edge.errors import DataError, ImageError, TrainingError
from stlm_edge.imaging import read_image
from stlm_edge.network.checkpoint import load
from stlm_edge.network.encoder import ARCHITECTURES
from stlm_edge.network.stlm import Stlm
from stlm_edge.spec import ModelSpec
from tests.settings import TWO_STREAMS
from train.__main__ import main
from train.config import from_dict
from train.data import Batches, load_images, split_indices
from train.fit import fit
from train.loop import Ending, train
from train.objective import Objective
from train.pseudo_anomalies.choice import PseudoAnomalies
from train.pseudo_anomalies.textures import FolderTextures, ProceduralTextures
from train.teaching.guidance import make_guidance
from train.teaching.teacher import build_teacher
from train.training import begin, make_optimisers

SPEC = ModelSpec("plate", "stlm-tiny", (64, 64), (64, 64), "")
QUICK = ["--preset", TWO_STREAMS, "--image-size", "64", "--epochs", "1", "--batch-size", "2"]


def training_of(network, config, teacher, steps=2):
    """A training and its guidance without the run's folder around it."""
    guidance = make_guidance(
        teacher, spec=SPEC, layers="l1+l2", precision="fp32", compile_teacher="off", cache_gb=config.teacher_cache_gb
    )
    objective = Objective(network, config, spec=SPEC, teacher_channels=teacher.channels)
    return begin(objective, config, steps_per_epoch=steps), guidance


def batches(images, **changes) -> Batches:
    settings = {"textures": ProceduralTextures(), "probability": 1.0, "largest_beta": 0.5}
    pseudo_anomalies = PseudoAnomalies(["perlin"], images=images, **(settings | changes))
    return Batches(images, pseudo_anomalies=pseudo_anomalies, batch_size=2, seed=0)


@pytest.fixture
def images():
    return [np.full((64, 64, 3), 40 * index, np.uint8) for index in range(1, 5)]


@pytest.mark.heavy
def test_fit_evaluate_and_threshold_run_in_a_row(plate, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["fit", "--data", str(plate), "--category", "plate", "-o", str(run), *QUICK]) == 0
    assert capsys.readouterr().out.strip() == str(run / "model.safetensors")
    checkpoint = load(run / "model.safetensors")
    assert checkpoint.spec.category == "plate"
    assert checkpoint.spec.require_threshold().method == "quantile"
    assert checkpoint.spec.normal_score_images == checkpoint.spec.require_threshold().images
    assert (checkpoint.spec.normal_score_deciles[0], checkpoint.spec.normal_score_deciles[-1]) == (
        checkpoint.spec.normal_score_range
    )
    assert checkpoint.config["epochs"] == 1
    assert len((run / "history.jsonl").read_text().splitlines()) == 1

    data = ["--data", str(plate), "--category", "plate"]
    assert main(["evaluate", str(run / "model.safetensors"), *data]) == 0
    assert "missing_hole" in capsys.readouterr().out
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["good"] == 2
    assert evaluation["defective"] == 4
    assert (run / "evaluation.png").stat().st_size > 0

    before = checkpoint.spec.require_threshold()
    assert main(["threshold", str(run / "model.safetensors"), *data]) == 0
    after = load(run / "model.safetensors").spec.require_threshold()
    assert after.value == pytest.approx(before.value, abs=1e-6)  # the same held-out pictures


def test_existing_run_is_not_overwritten(plate, tmp_path, capsys):
    (tmp_path / "model.safetensors").write_bytes(b"precious")
    assert main(["fit", "--data", str(plate / "plate"), "-o", str(tmp_path), *QUICK]) == 1
    assert "exists" in capsys.readouterr().err
    assert (tmp_path / "model.safetensors").read_bytes() == b"precious"


@pytest.mark.heavy
def test_plain_folder_of_good_pictures_trains(plate, tmp_path):
    good = tmp_path / "good parts"
    shutil.copytree(plate / "plate" / "train" / "good", good)
    assert main(["fit", "--data", str(good), "-o", str(tmp_path / "run"), *QUICK]) == 0
    assert load(tmp_path / "run" / "model.safetensors").spec.category == "good parts"


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("count", "arguments", "steps"),
    [
        (2, [], 1),
        (3, [], 1),
        (3, ["--batch-size", "1", "--accumulate", "2"], 2),
        (3, ["--batch-size", "1", "--precision", "bf16", "--workers", "1", "--patience", "1"], 2),
        (6, ["--batch-size", "1", "--teacher", "gabor", "--image-size", "64x96"], 5),
        (2, ["--streams-first", "0.5", "--epochs", "2", "--aggregation", "original", "--image-size", "32"], 1),
    ],
)
def test_few_pictures_and_steps_of_one_train(count, arguments, steps, plate, tmp_path, capsys):
    pictures = sorted((plate / "plate" / "train" / "good").iterdir())[:count]
    (tmp_path / "good").mkdir()
    for path in pictures:
        shutil.copy(path, tmp_path / "good")
    run = tmp_path / "run"
    assert main(["fit", "--data", str(tmp_path / "good"), "-o", str(run), *QUICK, *arguments]) == 0
    checkpoint = load(run / "model.safetensors")
    assert all(value.isfinite().all() for value in checkpoint.network.state_dict().values())
    assert checkpoint.spec.require_threshold().images >= 1
    log = capsys.readouterr().err
    single = "--batch-size" in arguments or count == 2
    assert ("one picture in a step" in log) == single
    assert f"on {steps if single else 2 * steps} picture" in log
    assert " 1 pictures" not in log and " 1 good pictures" not in log


def test_one_picture_is_too_few_and_says_how_many_are_needed(plate, tmp_path, capsys):
    (tmp_path / "good").mkdir()
    shutil.copy(plate / "plate" / "train" / "good" / "000.png", tmp_path / "good")
    assert main(["fit", "--data", str(tmp_path / "good"), "-o", str(tmp_path / "run"), *QUICK]) == 1
    assert (
        "found 1 good picture, expected at least 2: one to train on, one for the threshold" in capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.heavy
def test_random_teacher_streams_and_textures_are_said_aloud(plate, tmp_path, quick, caplog):
    fit(quick, data=plate, category="plate", textures=None, output=tmp_path / "run")
    for words in ("NO TEACHER WEIGHTS", "NO INITIAL WEIGHTS", "NO TEXTURES"):
        assert words in caplog.text


@pytest.mark.heavy
def test_same_seed_same_model_and_another_seed_another(plate, tmp_path, quick):
    def weights(name: str, seed: int) -> str:
        config = dataclasses.replace(quick, seed=seed)
        return load(
            fit(config, data=plate, category="plate", textures=None, output=tmp_path / name)
        ).spec.weights_sha256

    first = weights("a", 0)
    assert weights("b", 0) == first
    assert weights("c", 1) != first


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "nowhere"], "nowhere"),
        (["--category", "gear"], "gear"),
        (["--category", "plate", "--image-size", "100"], "multiples of 32"),
        (["--category", "plate", "--device", "abacus"], "abacus"),
        (["--category", "plate", "--teacher-weights", "nothing.pt"], "stlm-tiny"),
        (["--category", "plate", "--initial-weights", "mobile_sam.pt", "--architecture", "stlm"], "mobile_sam.pt"),
        (["--category", "plate", "--teacher", "none", "--aggregation", "none"], "nothing to learn from"),
        (["--category", "plate", "--initial-weights", "nothing.pt"], "nothing.pt"),
        (["--category", "plate", "--textures", "nowhere"], "nowhere"),
        (["--category", "plate", "-o", "/dev/null/run"], "cannot write"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_1(plate, tmp_path, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--data", str(plate), *QUICK, *arguments]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert words in lines[0]
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.heavy
def test_corrupt_picture_stops_the_run_or_is_skipped_by_choice(plate, tmp_path, capsys, caplog):
    data = tmp_path / "data"
    shutil.copytree(plate, data)
    broken = data / "plate" / "train" / "good" / "003.png"
    broken.write_bytes(broken.read_bytes()[:500])
    arguments = ["fit", "--data", str(data), "--category", "plate", "-o", str(tmp_path / "run"), *QUICK]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "003.png" in error
    assert "--skip-corrupt" in error
    assert main([*arguments, "--skip-corrupt"]) == 0


def test_skipped_pictures_are_named_and_counted(plate, tmp_path, caplog):
    from stlm_edge.datasets import load_category

    data = tmp_path / "plate"
    shutil.copytree(plate / "plate", data)
    for name in ("001.png", "002.png"):
        (data / "train" / "good" / name).write_bytes(b"")
    samples = load_category(data, None).train
    with pytest.raises(ImageError, match=r"001\.png"):
        load_images(samples, size=(64, 64), skip_corrupt=False)
    assert len(load_images(samples, size=(64, 64), skip_corrupt=True)) == 4
    assert "001.png" in caplog.text
    assert "2 of 6 pictures" in caplog.text


@pytest.mark.heavy
def test_ctrl_c_keeps_what_was_learnt(plate, tmp_path):
    run = tmp_path / "run"
    arguments = ["fit", "--data", str(plate), "--category", "plate", "-o", str(run), *QUICK, "--epochs", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "train", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 90
    while not (run / "history.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted; the model is kept" in errors
    assert load(run / "model.safetensors").spec.threshold is not None


@pytest.mark.heavy
def test_each_optimiser_and_loss_trains_every_part(images, quick):
    for optimiser, loss in (("sgd", "focal-l1"), ("adam", "bce-dice")):
        config = dataclasses.replace(quick, head_optimiser=optimiser, segmentation_loss=loss)
        torch.manual_seed(0)
        network = Stlm(ARCHITECTURES["stlm-tiny"])
        before = {name: tensor.clone() for name, tensor in network.named_parameters()}
        teacher = build_teacher("stlm-tiny", weights="random", image_size=(64, 64))
        frozen = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
        training, guidance = training_of(network, config, teacher)
        ending = train(training, guidance, batches(images), config=config, after_epoch=lambda _: False)
        assert ending is Ending.FINISHED
        still = {name for name, tensor in network.named_parameters() if torch.equal(tensor, before[name])}
        # The last token-to-image attention has no influence on L1 and L2.
        assert all("final_attn" in name for name in still)
        assert all(torch.equal(tensor, frozen[name]) for name, tensor in teacher.state_dict().items())


def test_sgd_has_destsegs_settings(quick):
    config = dataclasses.replace(quick, head_optimiser="sgd")
    objective = Objective(Stlm(ARCHITECTURES["stlm-tiny"]), config, spec=SPEC, teacher_channels=64)
    adam, sgd = make_optimisers(objective, config)
    assert adam.defaults["betas"] == (0.5, 0.999)
    assert [group["lr"] for group in sgd.param_groups] == [0.1, 0.01]
    assert all(group["momentum"] == 0.9 and group["weight_decay"] == 1e-4 for group in sgd.param_groups)


def test_losses_that_are_no_number_stop_the_training_and_leave_their_pictures(images, quick, tmp_path):
    network = Stlm(ARCHITECTURES["stlm-tiny"])
    torch.nn.init.constant_(network.feature_aggregation.head.out.bias, float("nan"))
    teacher = build_teacher("stlm-tiny", weights="random", image_size=(64, 64))
    training, guidance = training_of(network, quick, teacher)
    with pytest.raises(TrainingError, match=r"epoch-1-step-1 has its pictures; lower --learning-rate"):
        train(training, guidance, batches(images), config=quick, after_epoch=lambda _: False, failures=tmp_path)
    place = tmp_path / "epoch-1-step-1"
    saved = sorted(read_image(path).max() for path in place.glob("*-clean.png"))
    assert len(saved) == 2
    assert set(saved) <= {40, 80, 120, 160}
    assert json.loads((place / "losses.json").read_text())["segmentation"] == "nan"
    assert {path.name for path in place.glob("*-pseudo.png")} == {"0-pseudo.png", "1-pseudo.png"}


@pytest.mark.heavy
def test_wider_teacher_is_learnt_through_projections(images, quick):
    """A narrow network from MobileSAM's encoder: both losses fall, and nothing is added to the network."""
    torch.manual_seed(0)
    network = Stlm(ARCHITECTURES["stlm-tiny"])
    names = set(network.state_dict())
    teacher = build_teacher("mobile_sam", weights="random", image_size=(64, 64))
    losses = []
    config = dataclasses.replace(quick, epochs=8, teacher="mobile_sam")
    training, guidance = training_of(network, config, teacher)
    train(training, guidance, batches(images), config=config, after_epoch=losses.append)
    assert losses[-1].plain < 0.8 * losses[0].plain
    assert losses[-1].denoising < 0.8 * losses[0].denoising
    assert set(network.state_dict()) == names


@torch.no_grad()
def test_settled_random_teacher_tells_positions_apart():
    torch.manual_seed(0)
    teacher = build_teacher("stlm-tiny", weights="random", image_size=(128, 128))
    pixels = torch.randn(4, 3, 128, 128)
    teacher.settle(pixels)
    layer1, _ = teacher(pixels)
    assert not teacher.training
    assert layer1.std(dim=(2, 3)).mean() > 0.3


@torch.no_grad()
@pytest.mark.slow
def test_sam_teacher_loads_the_official_layout_at_another_size(tmp_path):
    """SAM ViT-B from the real package, at 256 instead of 1024 pixels: same features as its own encoder and decoder."""
    from segment_anything import sam_model_registry

    torch.manual_seed(0)
    sam = sam_model_registry["vit_b"]().eval()
    path = tmp_path / "own.pth"
    torch.save(sam.state_dict(), path)
    teacher = build_teacher("sam_vit_b", weights=str(path), image_size=(256, 256))
    pixels = torch.randn(1, 3, 256, 256)
    assert [tuple(layer.shape) for layer in teacher(pixels)] == [(1, 256, 16, 16)] * 2
    full = build_teacher("sam_vit_b", weights=str(path), image_size=(1024, 1024))
    assert torch.equal(full.encoder.pos_embed, sam.image_encoder.pos_embed)


def test_split_holds_out_the_asked_share_and_repeats():
    training, held_out = split_indices(range(20), holdout=0.2, seed=3)
    assert len(held_out) == 4
    assert sorted(training + held_out) == list(range(20))
    assert split_indices(range(20), holdout=0.2, seed=3)[1] == held_out
    with pytest.raises(DataError, match="at least 2"):
        split_indices([0], holdout=0.2, seed=0)


def test_batches_have_clean_pictures_where_there_is_no_pseudo_anomaly(images):
    for batch in batches(images, probability=0.0).epoch(1):
        assert torch.equal(batch.clean, batch.pseudo)
        assert not batch.mask.any()
    changed = [batch for number in range(1, 6) for batch in batches(images).epoch(number)]
    for batch in changed:
        outside = batch.mask[:, 0] == 0
        assert torch.equal(batch.clean[outside], batch.pseudo[outside])
    assert any(batch.mask.any() for batch in changed)


def test_texture_sources_give_pictures_of_the_wanted_size(tmp_path, plate, caplog):
    rng = np.random.default_rng(0)
    paths = sorted((plate / "plate" / "train" / "good").iterdir())
    (tmp_path / "broken.png").write_bytes(b"")
    folder = FolderTextures([*paths, tmp_path / "broken.png"])
    for source in (ProceduralTextures(), folder):
        for _ in range(20):
            texture = source.draw(rng, (64, 64))
            assert texture.shape == (64, 64, 3)
            assert texture.dtype == np.uint8
    assert caplog.text.count("broken.png") == 1
    with pytest.raises(DataError, match="none of the textures"):
        FolderTextures([tmp_path / "broken.png"]).draw(rng, (64, 64))


def test_config_of_a_checkpoint_reads_back(checkpoint, quick):
    assert from_dict(load(checkpoint).config) == quick
