"""What only a GPU can show of the training."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from stlm_edge.errors import TrainingError
from stlm_edge.network.checkpoint import load
from stlm_edge.spec import ModelSpec
from tests.settings import TWO_STREAMS
from train.config import from_dict, load_preset
from train.data import Batch
from train.fit import fit
from train.teaching.guidance import make_guidance
from train.teaching.teacher import build_teacher

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]


def settings(**changes):
    small = {"image_size": (128, 128), "epochs": 2, "batch_size": 2, "device": "cuda", "workers": 2}
    return from_dict(load_preset(TWO_STREAMS) | small | changes)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_trains(precision, plate, tmp_path):
    path = fit(settings(precision=precision), data=plate, category="plate", textures=None, output=tmp_path / "run")
    losses = [json.loads(line) for line in (path.parent / "history.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["plain"]) for line in losses)
    assert all(tensor.dtype != torch.float16 for tensor in load(path).network.state_dict().values())
    assert json.loads((path.parent / "run.json").read_text())["device"] == torch.cuda.get_device_name()


def test_compiled_half_precision_teacher_says_nearly_the_same():
    torch.manual_seed(0)
    teacher = build_teacher("sam_vit_b", weights="random", image_size=(256, 256)).cuda()
    spec = ModelSpec("plate", "stlm", (256, 256), (256, 256), "")
    pictures = torch.randint(0, 256, (2, 256, 256, 3), dtype=torch.uint8)
    batch = Batch(pictures, pictures, torch.zeros(2, 1, 256, 256), (False, False), (None, None))
    found = {}
    for precision, compile_teacher in (("fp32", "off"), ("bf16", "on")):
        guidance = make_guidance(
            teacher, spec=spec, layers="l1+l2", precision=precision, compile_teacher=compile_teacher, cache_gb=0.0
        )
        found[precision] = guidance(batch.to("cuda"))
    for exact, half in zip(found["fp32"].plain, found["bf16"].plain, strict=True):
        assert torch.cosine_similarity(exact.float(), half.float()).min() > 0.98


def test_running_out_of_memory_is_one_clear_line(plate, tmp_path):
    config = dataclasses.replace(settings(architecture="stlm"), image_size=(1024, 1024), batch_size=4)
    torch.cuda.set_per_process_memory_fraction(2e9 / torch.cuda.get_device_properties(0).total_memory)
    try:
        with pytest.raises(TrainingError, match="lower --batch-size"):
            fit(config, data=plate, category="plate", textures=None, output=tmp_path / "run")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
