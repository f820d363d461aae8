"""The page of a training."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import train
from stlm_edge.command import main
from stlm_edge.datasets import Parts
from stlm_edge.imaging import write_image
from stlm_edge.network.checkpoint import load, save
from stlm_edge.seal import sealed
from stlm_edge.spec import Threshold

PLATE = Path(train.__file__).parent / "pretrained/plate"
ODD = "<img src=x onerror=alert(1)> $a_b$ é"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of a part with an odd name, with all files that a page is made of; copy what you change."""
    run = tmp_path_factory.mktemp("run")
    loaded = load(PLATE / "model.safetensors")
    threshold = Threshold(0.25, "quantile", 40, 0.01, (0.001, 0.05), unclear=0.2, unclear_rate=0.05)
    spec = dataclasses.replace(loaded.spec, threshold=threshold, category=ODD)
    parts = Parts((0, 0, 1, 2, 2, 2), how="nobody said; 5 look nearly the same as others")
    save(run / "model.safetensors", dataclasses.replace(loaded, spec=spec, parts=parts))
    for index in range(6):
        (run / "data/train/good").mkdir(parents=True, exist_ok=True)
        write_image(run / f"data/train/good/{index}.png", np.full((70, 90, 3), 40 * index, np.uint8))
    record = {"data": str(run / "data"), "category": None, "pictures": {"count": 6, "sha256": "0"}, "command": ODD}
    (run / "run.json").write_text(json.dumps(record | {"git": {"commit": "abc", "changed": True}}))
    found = json.loads((PLATE / "evaluation.json").read_text())
    kinds = {ODD: found["kinds"]["chip"], "stain": found["kinds"]["stain"]}
    counted = {"defective": 10, "missed": 1, "found_marked": 9, "peak_in_mask": 8}
    measured = found | {"weights_sha256": spec.weights_sha256, "threshold": 0.25, "kinds": kinds}
    measured["verdicts"] = {ODD: counted, "stain": counted, "all": counted}
    (run / "evaluation.json").write_text(json.dumps(sealed(measured)))
    lines = [f"p{index},{'good' if index < 5 else 'stain'},{index / 10}" for index in range(10)]
    (run / "evaluation-scores.csv").write_text("\n".join(["picture,label,score", *lines]) + "\n")
    write_image(run / "evaluation-missed.png", np.zeros((3000, 4000, 3), np.uint8))
    shutil.copy(PLATE / "history-1.jsonl", run / "history.jsonl")
    return run


class Page(HTMLParser):
    """Text and pictures of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.addresses = "", set(), []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


def test_page_has_all_of_it_in_one_file_and_nothing_of_a_name_is_markup(finished, tmp_path):
    assert main(["report", str(finished), "-o", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert all(re.match(r"data:image/jpeg;base64,|#", address) for address in page.addresses)
    assert len([address for address in page.addresses if address.startswith("data:")]) == 1
    assert len(text) < 1_000_000  # a sheet of 12 million pixels is in it
    found = re.sub(r"\s+", " ", page.text)
    assert found.count(ODD) >= 4  # title, heading, kind, command
    for words in (
        "expected false-alarm rate on new pictures: 1 %",
        "unclear from 0.2 on",
        "2 of 40 defective ones missed, 0 of 40 good ones called anomalous",
        "1 of 10",
        "segmentation",
        "threshold 0.25",
        "Missed defects",
        "3 (nobody said; 5 look nearly the same as others)",
        "1 with 2, 1 with 3",
        "70 x 90 (6) of 6 looked at",
        "abc with changes",
        "stlm-tiny",
    ):
        assert words in found, words


def test_run_that_was_only_trained_has_a_page_too(finished, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("model.safetensors", "run.json"):
        shutil.copy(finished / name, run)
    (run / "run.json").write_text('{"data": "/nowhere"}')
    assert main(["report", str(run)]) == 0
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "Nobody has measured these weights" in text
    assert "No epoch was trained" in text
    assert "the pictures are not where they were; give --data" in text


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda run: (run / "model.safetensors").unlink(), "holds no finished training"),
        (lambda run: (run / "state.pt").touch(), "stlm resume"),
        (lambda run: (run / "history.jsonl").write_text("{"), "line 1 of"),
        (lambda run: (run / "history.jsonl").write_text('{"epoch": "<b>"}'), "line 1 of"),
        (lambda run: (run / "evaluation-scores.csv").write_text("a,b\n1,2\n"), "run stlm evaluate again"),
        (
            lambda run: (run / "evaluation-scores.csv").write_text("picture,label,score\na,good,nan\n"),
            "a score is not finite",
        ),
        (lambda run: (run / "evaluation.json").write_text('{"sha256": "1"}'), "run stlm evaluate again"),
        (lambda run: (run / "evaluation-missed.png").write_bytes(b"no"), "evaluation-missed.png"),
        (lambda run: (run / "run.json").unlink(), "has no run.json"),
        (lambda run: (run / "report.html").mkdir(), "report.html"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_page(finished, tmp_path, capsys, damage, words):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    damage(run)
    assert main(["report", str(run)]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert words in line
    assert not (run / "report.html").is_file()
