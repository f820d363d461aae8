"""What an older version wrote is still read, in the words of today. The files are real ones of commit 5351849."""

from __future__ import annotations

from pathlib import Path

from stlm_edge import Sidecar
from stlm_edge.network.checkpoint import load
from train.config import from_dict

BEFORE = Path(__file__).parent / "written_before"


def test_sidecar_with_the_old_words_is_read_and_its_seal_holds():
    sidecar = Sidecar.read(BEFORE / "bottle.plan")
    assert sidecar.engine.product == "tensorrt-rtx"
    assert sidecar.engine.gate is not None
    assert sidecar.engine.gate.verified
    assert (sidecar.engine.built_on, sidecar.engine.portability) == (None, None)
    assert sidecar.spec.require_threshold().method == "quantile"


def test_sidecar_is_written_in_the_new_words(tmp_path):
    before = Sidecar.read(BEFORE / "bottle.plan")
    before.write(tmp_path / "new.plan")
    text = (tmp_path / "new.plan.json").read_text()
    assert Sidecar.read(tmp_path / "new.plan") == before
    for word in ("blessed", "flavour", "good-quantile"):
        assert f'"{word}"' not in text


def test_checkpoint_and_settings_with_the_old_words_are_read():
    shipped = Path(__file__).parents[1] / "train" / "pretrained" / "plate" / "model.safetensors"
    assert load(shipped).spec.require_threshold().method == "quantile"
    assert from_dict({"exposure_jitter": 0.25}).brightness == 0.25
    assert from_dict({"pseudo_anomalies": "perlin+nsa+scar"}).pseudo_anomalies == "perlin+hiding+scar"
