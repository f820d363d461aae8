"""Our network stands beside the bar and other methods, with intervals and the gain over the bar."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import gabor, peers
from benchmarks.accuracy import labelled_set
from benchmarks.gabor import GaborMemory, features
from benchmarks.intervals import resample
from benchmarks.peers import Peer, estimates, main, opened, our_network
from benchmarks.record import read
from benchmarks.tables import is_peer
from stlm_edge.errors import DataError
from stlm_edge.imaging import read_image
from stlm_edge.inspection import Answer
from stlm_edge.resampling import Judged


def striped(rng: np.random.Generator, *, size=(180, 140), defect: bool = False, light: float = 1.0):
    """A ground surface: vertical stripes; the defect is a place where they lie across."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    grey = 90 + 30 * np.sin(columns * 0.9 + rng.uniform(0, 6)) + rng.normal(0, 4, size)
    mask = np.zeros(size, np.uint8)
    if defect:
        mask[60:110, 40:90] = 255
        grey = np.where(mask, 90 + 30 * np.sin(rows * 0.9), grey)
    image = np.clip(light * grey, 0, 255).astype(np.uint8)
    return np.repeat(image[:, :, None], 3, axis=2), mask


@pytest.fixture(scope="module")
def ground(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "ground"
    rng = np.random.default_rng(0)
    for folder in ("train/good", "test/good", "test/turned", "ground_truth/turned"):
        (root / folder).mkdir(parents=True)
    for index in range(6):
        cv2.imwrite(str(root / f"train/good/{index}.png"), striped(rng)[0])
        cv2.imwrite(str(root / f"test/good/{index}.png"), striped(rng, light=rng.uniform(0.5, 1.5))[0])
        image, mask = striped(rng, defect=True, light=rng.uniform(0.5, 1.5))
        cv2.imwrite(str(root / f"test/turned/{index}.png"), image)
        cv2.imwrite(str(root / f"ground_truth/turned/{index}_mask.png"), mask)
    lines = [f"test/{kind}/{index}.png,{kind}{index // 2}" for kind in ("good", "turned") for index in range(6)]
    (root / "tiles.csv").write_text("file,tile\n" + "\n".join(lines) + "\n")
    return root


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The last line on stderr."""
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.slow
def test_network_and_engine_stand_beside_the_bar(
    ground: Path,
    small_checkpoint: Path,
    traced_engine: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peers, "resample", partial(resample, resamples=100))
    path = tmp_path / "peers.json"
    data = ["--data", str(ground.parent), "--category", ground.name, "--tiles", str(ground / "tiles.csv")]
    ours = ["--checkpoint", str(small_checkpoint), "--engine", str(traced_engine)]
    quick = ["--method", "gabor", "--turns", "2", "--runs", "1"]
    assert main([*data, *ours, *quick, "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    record = read(path)
    assert record.is_complete
    rows = record.details["methods"]
    names = [row["name"] for row in rows]
    assert names == [
        "Gabor filters",
        "STLM (checkpoint/small.safetensors)",
        f"STLM ({traced_engine.parent.name}/small.onnx)",
    ]
    assert rows[2]["backbone"].endswith(" in fp32")
    assert [is_peer(row) for row in rows] == [True, False, False]
    for row in rows:
        assert row["p50_ms"] > 0
        assert row["name"] in printed
        assert record.measures[f"{row['name']} total p50"].better == "lower"
    bar, trained, deployed = rows
    assert bar["image_auroc"] == 1
    assert bar["pixel_auroc"] > 0.97
    assert bar["kinds"]["turned"]["pixel_ap"]["low"] > 0.7
    assert bar["gain"] == {}
    assert f"{trained['name']}, gain over the bar" in printed
    gain = trained["gain"]["all"]["pixel_auroc"]
    assert gain["value"] == pytest.approx(trained["pixel_auroc"] - bar["pixel_auroc"], abs=2e-4)
    assert gain["low"] <= gain["value"] <= gain["high"]
    assert deployed["pixel_auroc"] == pytest.approx(trained["pixel_auroc"], abs=0.01)


def judged(kind: str, part: str, rng: np.random.Generator, *, contrast: float) -> Judged:
    mask = np.zeros((24, 30), np.uint8)
    if kind != "good":
        mask[4:12, 5:15] = 1
    anomaly_map = (rng.normal(0, 1, mask.shape) + contrast * mask).astype(np.float32)
    return Judged(kind, part, Answer(anomaly_map, float(anomaly_map.max())), mask)


def test_gain_is_paired() -> None:
    rng = np.random.default_rng(3)
    kinds = ["good"] * 8 + ["dent"] * 8
    bar, better = (
        resample([judged(kind, str(i), rng, contrast=c) for i, kind in enumerate(kinds)], resamples=200)["all"]
        for c in (0.5, 2)
    )
    model, gain = estimates(better)["pixel_auroc"], estimates(better, minus=bar)["pixel_auroc"]
    assert model["value"] == pytest.approx(better.exact["pixel_auroc"], abs=1e-4)
    assert gain["value"] == pytest.approx(better.exact["pixel_auroc"] - bar.exact["pixel_auroc"], abs=1e-4)
    assert 0 < gain["low"] < gain["value"] < gain["high"]
    assert set(estimates(bar, minus=bar)["aupro"].values()) == {0}


class Bright:
    """An inspector by brightness, to which a run adds its own."""

    def __init__(self, more: float) -> None:
        self.more = more

    def inspect(self, image: np.ndarray) -> Answer:
        grey = image[..., 0].astype(np.float32) / 255
        return Answer(grey, float(grey.mean()) + self.more)


def test_of_several_seeds_the_mean_counts_and_each_threshold(ground: Path) -> None:
    samples = labelled_set(ground.parent, ground.name).samples
    parts = [str(number // 2) for number in range(len(samples))]
    openers = tuple(partial(opened, Bright, more) for more in (0.0, 0.1, 0.3))
    found, facts = Peer("", "ours", dict, openers, (2.0, 0.05, -1.0)).judged(samples, parts, seed=0)
    assert facts["note"] == "mean of 3 seeds; at its threshold 6, 0, 0 of 6 missed, 0, 6, 6 of 6 false alarms"
    alone, no_words = Peer("", "ours", dict, openers[:1]).judged(samples, parts, seed=0)
    assert no_words == {"missed_share": facts["missed_share"]}
    scores = {
        good: [Bright(0).inspect(read_image(s.path)).score for s in samples if (s.label == "good") is good]
        for good in (True, False)
    }
    assert facts["missed_share"] == np.mean(np.array(scores[False]) < max(scores[True]))
    assert found["all"].exact["image_auroc"] == pytest.approx(alone["all"].exact["image_auroc"])
    assert np.allclose(found["all"].draws["image_auroc"], alone["all"].draws["image_auroc"])


def test_folder_of_seeds_is_one_row(small_checkpoint: Path, tmp_path: Path) -> None:
    for seed in (0, 3):
        (tmp_path / f"tiles/seed-{seed}").mkdir(parents=True)
        (tmp_path / f"tiles/seed-{seed}/model.safetensors").write_bytes(small_checkpoint.read_bytes())
    peer = our_network(tmp_path / "tiles")
    assert (peer.name, len(peer.openers), len(set(peer.thresholds))) == ("STLM (tiles)", 2, 1)
    assert peer.about()["backbone"] == "stlm-tiny"
    with pytest.raises(DataError, match="has no seed-0, seed-1"):
        our_network(tmp_path)


def test_undefined_figure_is_null() -> None:
    rng = np.random.default_rng(3)
    pictures = [judged(kind, str(i), rng, contrast=1) for i, kind in enumerate(["good", "dent", "good", "dent"])]
    unmasked = [Judged(p.kind, p.part, p.answer, np.zeros_like(p.mask)) for p in pictures]
    figures = estimates(resample(unmasked, resamples=10)["all"])
    assert figures["pixel_ap"] == dict.fromkeys(("value", "low", "high"))


def test_method_that_fails_says_so_in_its_row(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fitted(*_: object, **__: object) -> None:
        raise ValueError("no such layer")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(peers, "fitted", fitted)
    path = tmp_path / "peers.json"
    assert main(["--data", str(ground), "--method", "padim", "--json", str(path)]) == 1
    assert "PaDiM failed" in said(capsys)
    record = read(path)
    assert not record.is_complete
    (row,) = record.details["methods"]
    assert row["note"] == "failed: ValueError: no such layer"
    assert row["image_auroc"] is None


def test_seed_decides_which_patches_are_remembered(ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gabor, "MEMORY", 50)
    paths = sorted((ground / "train/good").iterdir())
    first, again, other = (GaborMemory.of(paths, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.patches, again.patches)
    assert not np.array_equal(first.patches, other.patches)
    assert len(first.patches) == 50


def test_narrow_and_flat_pictures_are_described(ground: Path) -> None:
    memory = GaborMemory.of(sorted((ground / "train/good").iterdir()))
    for size in ((300, 3), (2, 200), (40, 40)):
        image = np.full((*size, 3), 128, np.uint8)
        assert np.isfinite(features(image)).all()
        answer = memory.inspect(image)
        assert answer.anomaly_map.shape == size
        assert np.isfinite(answer.score)


def test_without_anomalib_one_line_says_what_makes_its_environment(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "anomalib" else find(name))
    record = tmp_path / "out.json"
    assert main(["--data", str(ground), "--method", "padim", "--json", str(record)]) == 1
    line = said(capsys)
    assert line.startswith("error: anomalib is not installed here")
    assert "benchmarks/requirements-peers.txt" in line
    words = (Path(__file__).parents[2] / "benchmarks/requirements-peers.txt").read_text()
    assert "-r benchmarks/requirements-peers.txt" in words
    assert not record.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "{root}/none", "--method", "padim"], "none does not exist"),
        (["--data", "{root}", "--category", "moon", "--method", "padim"], "no category 'moon'"),
        (["--data", "{root}/ground/train/good", "--method", "gabor"], "found 6 pictures without labels"),
        (["--data", "{root}/ground"], "efficientad and draem train with pictures of other things; give --textures"),
        (["--data", "{root}/ground", "--textures", "{root}/none"], "none"),
        (["--data", "{root}/ground", "--method", "gabor", "--tiles", "{root}/none.csv"], "none.csv cannot be read"),
    ],
)
def test_input_that_cannot_work_is_one_line(
    ground: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument.format(root=ground.parent) for argument in arguments]) == 1
    line = said(capsys)
    assert line.startswith("error: ")
    assert words in line


def test_unknown_method_is_wrong_usage(ground: Path) -> None:
    assert main(["--data", str(ground), "--method", "magic"]) == 2
