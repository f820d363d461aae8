"""The model card beside a run."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

import train
from stlm_edge.network.checkpoint import Checkpoint, load
from stlm_edge.seal import sealed
from stlm_edge.spec import Threshold
from train.__main__ import main
from train.card import CARD_NAME, is_ours, renew_card

PLATE = Path(train.__file__).parent / "pretrained/plate"
ODD = "plate: *é* <script>alert(1)</script>\n---\n| [x](javascript:1) `#"


@pytest.fixture(scope="module")
def trained() -> Checkpoint:
    loaded = load(PLATE / "model.safetensors")
    threshold = Threshold(0.25, "quantile", 40, 0.01, (0.001, 0.05), unclear=0.2, unclear_rate=0.05)
    return dataclasses.replace(loaded, spec=dataclasses.replace(loaded.spec, threshold=threshold))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    record = {"data": f"/home/somebody/{ODD}".replace("\n", "\\x0a"), "pictures": {"count": 40, "sha256": "0"}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    return tmp_path


def measure(run: Path, checkpoint: Checkpoint, **changes: object) -> None:
    found = json.loads((PLATE / "evaluation.json").read_text())
    content = found | {"weights_sha256": checkpoint.spec.weights_sha256, "threshold": 0.25} | changes
    (run / "evaluation.json").write_text(json.dumps(sealed({k: v for k, v in content.items() if k != "sha256"})))


def test_yaml_and_figures_are_read_by_the_hubs_own_library(run, trained):
    measure(run, trained)
    spec = dataclasses.replace(trained.spec, category=ODD)
    renew_card(run / "model.safetensors", dataclasses.replace(trained, spec=spec))
    text = (run / CARD_NAME).read_text()
    data = ModelCard(text).data
    assert (data.library_name, data.pipeline_tag) == ("stlm-edge", "image-segmentation")
    overall = json.loads((PLATE / "evaluation.json").read_text())["overall"]
    told = {result.metric_name: result.metric_value for result in data.eval_results}
    assert told["AUPRO"] == pytest.approx(overall["aupro"], abs=1e-4)
    assert told["image AUROC"] == pytest.approx(overall["image_auroc"], abs=1e-4)
    assert yaml.safe_load(text.split("---\n")[1])["model-index"][0]["results"][0]["dataset"]["name"].startswith("plate")
    body = text.split("---\n", 2)[2]
    assert not re.search(r"(?<!\\)<script|(?<!\\)\[x\]", body)  # nothing of the name is markup
    assert "somebody" not in text  # where it lies on a machine
    assert "expected false-alarm rate on new pictures: 1 %" in body
    assert "unclear from 0.2 on" in body
    assert f"misses {json.loads((PLATE / 'evaluation.json').read_text())['missed']} of" in body


def test_figures_of_other_weights_and_verdicts_of_another_threshold_are_left_out(run, trained):
    measure(run, trained, threshold=0.3)
    renew_card(run / "model.safetensors", trained)
    text = (run / CARD_NAME).read_text()
    assert "last judged with another threshold, 0.3" in text
    assert "it misses" not in text
    measure(run, trained, weights_sha256="0" * 64)
    renew_card(run / "model.safetensors", trained)
    assert "Nobody has measured it" in (run / CARD_NAME).read_text()
    assert "model-index" not in (run / CARD_NAME).read_text()


@pytest.mark.parametrize("change", ["another's", "edited"])
def test_card_that_it_did_not_write_stays(run, trained, change):
    card = run / CARD_NAME
    renew_card(run / "model.safetensors", trained)
    assert is_ours(card.read_text())
    text = "# Ours\n" if change == "another's" else card.read_text() + "\nSpecial care: oil.\n"
    card.write_text(text)
    measure(run, trained)
    renew_card(run / "model.safetensors", trained)
    assert card.read_text() == text


def test_checkpoint_alone_gets_none_and_what_cannot_be_written_is_a_warning(run, trained, caplog, tmp_path):
    (run / CARD_NAME).mkdir()
    renew_card(run / "model.safetensors", trained)
    assert "no model card was written" in caplog.text
    (run / CARD_NAME).rmdir()
    (run / "run.json").write_text('{"versions": 3}')
    renew_card(run / "model.safetensors", trained)
    assert "run.json" in caplog.text
    (run / "run.json").unlink()
    renew_card(run / "model.safetensors", trained)
    assert not (run / CARD_NAME).exists()


def test_training_writes_it_and_evaluation_and_threshold_renew_it(trained_run, plate, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    written = (run / CARD_NAME).read_text()
    assert is_ours(written)
    assert "6 good pictures of 6 parts, from drawn" in written
    data = ["--data", str(plate), "--category", "plate"]
    assert main(["evaluate", str(run / "model.safetensors"), *data]) == 0
    measured = (run / CARD_NAME).read_text()
    assert "image AUROC" in measured
    assert main(["threshold", str(run / "model.safetensors"), *data, "--method", "f1"]) == 0
    changed = (run / CARD_NAME).read_text()
    assert "method `f1`" in changed
    assert "method `f1`" not in measured
    assert f"{load(run / 'model.safetensors').spec.threshold.value:.6g}" in changed
