"""The weights that the demo goes on from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import train
from stlm_edge.network.checkpoint import load
from stlm_edge.network.encoder import ARCHITECTURES
from stlm_edge.network.inference import InferencePath
from stlm_edge.network.initial import load_initial
from stlm_edge.network.stlm import Stlm
from stlm_edge.plate.part import render_part
from train.evaluate import score_images

PATH = Path(train.__file__).parent / "pretrained" / "plate" / "model.safetensors"


def test_shipped_weights_are_small_and_start_a_training():
    assert PATH.stat().st_size <= 4e6
    report = load_initial(Stlm(ARCHITECTURES["stlm-tiny"]), PATH)
    assert set(report.loaded) == {"whole network"}


@pytest.mark.heavy
@torch.no_grad()
def test_shipped_model_tells_good_parts_from_coarse_defects():
    checkpoint = load(PATH)
    inspector = InferencePath(checkpoint.network, checkpoint.spec)
    threshold = checkpoint.spec.require_threshold().value

    def scores(defect):
        rng = np.random.default_rng(12345)
        return score_images(inspector, [render_part(rng, size=(256, 256), defect=defect).image for _ in range(8)])

    good = scores(None)
    assert np.median(good) < threshold
    for defect in ("stain", "chip"):
        found = scores(defect)
        assert min(found) > max(good)
        assert np.median(found) >= threshold
