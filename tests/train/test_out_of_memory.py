"""When memory runs out, the message names settings that need less of it, and whoever follows it ends with a model."""

from __future__ import annotations

import dataclasses
import json
import re
from types import SimpleNamespace

import pytest
import torch

from stlm_edge.errors import TrainingError
from stlm_edge.network.checkpoint import load
from stlm_edge.network.inference import InferencePath
from stlm_edge.network.stlm import Stlm
from tests.settings import TWO_STREAMS
from train.__main__ import main
from train.config import TrainConfig
from train.evaluate import score_images
from train.out_of_memory import advice_on_memory
from train.record import CONFIG_NAME

PAPER = TrainConfig()


def advice(config: TrainConfig, *, share: int, processes: int = 1, epoch: int = 0) -> str:
    training = SimpleNamespace(device=torch.device("cpu"), epoch=epoch)
    with (
        pytest.raises(TrainingError) as caught,
        advice_on_memory(training, config, share=share, processes=processes),
    ):
        raise MemoryError
    return str(caught.value)


def test_every_way_that_is_left_is_named_with_its_value():
    assert advice(PAPER, share=2) == (
        "memory ran out in a step of 2 pictures of 1024 x 1024 in fp32; train again with --batch-size 1 --accumulate 2 "
        "(the weights move as before) or --precision bf16 or --image-size 512x512"
    )


def test_what_cannot_be_lowered_is_not_named():
    halved = dataclasses.replace(PAPER, precision="bf16")
    assert "--precision" not in advice(halved, share=2)
    assert "--batch-size" not in advice(PAPER, share=1)
    smallest = dataclasses.replace(halved, image_size=(32, 32))
    assert "nothing can be lowered any more" in advice(smallest, share=1)
    assert "--" not in advice(smallest, share=1)


def test_pictures_stay_of_a_size_that_the_network_and_the_teacher_take():
    assert "--image-size 32x64" in advice(dataclasses.replace(PAPER, image_size=(32, 160)), share=1)
    gabor = dataclasses.replace(PAPER, teacher="gabor", teacher_weights="random", image_size=(96, 96))
    assert "--image-size" not in advice(gabor, share=1)


def test_steps_become_smaller_without_a_rest_and_shared_by_as_many_processes():
    assert "--batch-size 3 --accumulate 3 " in advice(PAPER, share=9)
    assert "--batch-size 4 --accumulate 2 " in advice(PAPER, share=2, processes=4)
    assert "--batch-size" not in advice(PAPER, share=1, processes=4)


def test_run_that_has_a_model_is_not_trained_over_but_resumed_or_trained_elsewhere():
    found = advice(PAPER, share=4, epoch=3)
    assert "write batch_size: 2 and accumulate: 2 into its config.yaml and resume, or" in found
    assert "train again into another folder with --batch-size 2" in found
    assert "resume" not in advice(PAPER, share=1, epoch=3)


def test_other_errors_are_left_alone():
    training = SimpleNamespace(device=torch.device("cpu"), epoch=0)
    with pytest.raises(RuntimeError, match="shapes"), advice_on_memory(training, PAPER, share=2, processes=1):
        raise RuntimeError("shapes differ")


class Memory:
    """A machine whose memory holds so many pixels of pictures in a step that learns, and of others as many."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pixels: int) -> None:
        self.pixels = pixels
        original = Stlm.features

        def features(network, pixels, **given):
            if pixels.shape[0] * pixels.shape[2] * pixels.shape[3] > self.pixels:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte")
            return original(network, pixels, **given)

        monkeypatch.setattr(Stlm, "features", features)


def flags(message: str, name: str) -> list[str]:
    """What the message says to give for `--name`, and what stands with it."""
    return re.search(rf"--{name}[^(]*?(?= \(| or |$)", message)[0].split()


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("preferred", "tries"),
    [(("batch-size", "image-size"), 4), (("image-size",), 3), (("precision", "batch-size", "image-size"), 5)],
)
def test_whoever_follows_the_advice_ends_with_a_model(preferred, tries, plate, tmp_path, capsys, monkeypatch):
    """From 4 pictures of 128 x 128 to what memory holds: one of 96 x 96."""
    Memory(monkeypatch, 96 * 96)
    arguments = [
        "fit",
        "--preset",
        TWO_STREAMS,
        "--data",
        str(plate / "plate"),
        "-o",
        str(tmp_path / "run"),
        "--epochs",
        "1",
    ]
    arguments += ["--image-size", "128", "--batch-size", "4"]
    for _ in range(tries):
        if main(arguments) == 0:
            break
        message = capsys.readouterr().err.splitlines()[-1]
        named = next(name for name in preferred if f"--{name}" in message)
        arguments += flags(message, named)
        preferred = tuple(name for name in preferred if name != "precision")
    assert load(tmp_path / "run" / "model.safetensors").spec.threshold is not None


@pytest.mark.heavy
def test_run_that_lost_its_memory_later_is_resumed_with_smaller_steps(plate, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    memory = Memory(monkeypatch, 4 * 64 * 64)
    from train import fit as module

    keep = module._Keeper.__call__

    def lose_memory(keeper, record):
        memory.pixels = 2 * 64 * 64
        return keep(keeper, record)

    with monkeypatch.context() as patch:
        patch.setattr(module._Keeper, "__call__", lose_memory)
        small = ["--preset", TWO_STREAMS, "--image-size", "64", "--batch-size", "4", "--epochs", "3"]
        assert main(["fit", "--data", str(plate / "plate"), "-o", str(run), *small]) == 1
    assert "write batch_size: 2 and accumulate: 2 into its config.yaml and resume" in capsys.readouterr().err
    config = (run / CONFIG_NAME).read_text().replace("batch_size: 4", "batch_size: 2")
    (run / CONFIG_NAME).write_text(config.replace("accumulate: 1", "accumulate: 2"))
    assert main(["resume", str(run)]) == 0
    assert [json.loads(line)["epoch"] for line in (run / "history.jsonl").read_text().splitlines()] == [1, 2, 3]


def test_scores_are_those_of_fewer_pictures_at_once(checkpoint, monkeypatch, caplog):
    caplog.set_level("INFO")
    loaded = load(checkpoint)
    inspector = InferencePath(loaded.network, loaded.spec)
    images = list(torch.randint(0, 256, (5, 64, 64, 3), dtype=torch.uint8).numpy())
    monkeypatch.setattr("train.evaluate.CPU_BATCH", 4)
    wanted = score_images(inspector, images)
    memory = Memory(monkeypatch, 64 * 64)
    assert score_images(inspector, images) == pytest.approx(wanted, abs=1e-6)
    assert [record.args for record in caplog.records] == [(4, 2), (2, 1)]
    memory.pixels = 0
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        score_images(inspector, images)
