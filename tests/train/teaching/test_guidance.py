"""The teacher is asked as seldom as possible, and what it said before is what it would say again."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stlm_edge.errors import ConfigError
from stlm_edge.spec import ModelSpec
from train.data import Batches
from train.pseudo_anomalies.choice import PseudoAnomalies
from train.pseudo_anomalies.textures import ProceduralTextures
from train.teaching.feature_cache import FeatureCache
from train.teaching.guidance import Guidance, make_guidance
from train.teaching.teacher import MaskTeacher, build_teacher

SPEC = ModelSpec("plate", "stlm-tiny", (64, 64), (64, 64), "")


class Counting(torch.nn.Module):
    """Counts the pictures that an encoder sees."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.seen = 0

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.seen += len(pixels)
        return self.encoder(pixels)


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    teacher = build_teacher("stlm-tiny", weights="random", image_size=(64, 64))
    teacher.encoder = Counting(teacher.encoder)
    return teacher


@pytest.fixture
def images():
    return list(np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), np.uint8))


def batches(images, *, probability=0.5, **changes):
    pseudo = PseudoAnomalies(
        ["perlin"], images=images, textures=ProceduralTextures(), probability=probability, largest_beta=0.0
    )
    return Batches(images, pseudo_anomalies=pseudo, batch_size=3, seed=0, **changes)


def guidance(teacher, cache=None, **changes) -> Guidance:
    settings = {"layers": "l1+l2", "precision": "fp32", "compiled": False}
    return Guidance(teacher, spec=SPEC, cache=cache, **(settings | changes))


def test_both_streams_are_taught_what_the_teacher_sees(teacher, images):
    """As the authors ask it: the plain stream by the picture with the pseudo anomaly, the other by the clean one."""
    from stlm_edge.network.inference import prepare

    for batch in batches(images).epoch(1):
        taught = guidance(teacher)(batch)
        for features, pictures in ((taught.plain, batch.pseudo), (taught.denoising, batch.clean)):
            for layer, wanted in zip(features, teacher(prepare(pictures, SPEC)), strict=True):
                assert torch.allclose(layer, wanted, atol=1e-4)


def test_unchanged_pictures_are_asked_about_once(teacher, images, tmp_path):
    guide = guidance(teacher, FeatureCache(tmp_path, "a", limit_bytes=1 << 30))
    anomalies = 0
    for epoch in range(1, 5):
        for batch in batches(images).epoch(epoch):
            guide(batch)
            anomalies += sum(batch.changed)
    assert 0 < anomalies < 4 * len(images)
    assert teacher.encoder.seen == len(images) + anomalies  # 2 * 4 * 6 in the authors' way


def test_turned_pictures_are_never_kept(teacher, images, tmp_path):
    guide = guidance(teacher, FeatureCache(tmp_path, "a", limit_bytes=1 << 30))
    for epoch in (1, 2):
        for batch in batches(images, probability=0.0, rotation="slight").epoch(epoch):
            guide(batch)
    assert teacher.encoder.seen == 2 * len(images)
    assert not list(tmp_path.rglob("*.features"))


def test_remembered_features_are_the_same_to_the_bit(teacher, images, tmp_path):
    def taught():
        guide = guidance(teacher, FeatureCache(tmp_path, "a", limit_bytes=1 << 30))
        return [guide(batch) for epoch in (1, 2) for batch in batches(images).epoch(epoch)]

    cold = taught()
    assert list(tmp_path.rglob("*.features"))
    for first, second in zip(cold, taught(), strict=True):
        for ours, theirs in ((first.plain, second.plain), (first.denoising, second.denoising)):
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("damage", ["deleted", "cut off", "not tensors"])
def test_damaged_or_deleted_features_are_computed_again(teacher, images, tmp_path, damage):
    batch = next(iter(batches(images, probability=0.0).epoch(1)))
    wanted = guidance(teacher, FeatureCache(tmp_path, "a", limit_bytes=1 << 30))(batch)
    for path in tmp_path.rglob("*.features"):
        if damage == "deleted":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:100] if damage == "cut off" else b"rubbish")
    again = guidance(teacher, FeatureCache(tmp_path, "a", limit_bytes=1 << 30))(batch)
    assert all(torch.equal(a, b) for a, b in zip(wanted.plain, again.plain, strict=True))
    assert all(load_file(path) for path in tmp_path.rglob("*.features"))


def test_flipped_byte_of_a_remembered_feature_is_noticed(tmp_path):
    cache, cpu = FeatureCache(tmp_path, "a", limit_bytes=1 << 20), torch.device("cpu")
    features = (torch.arange(24.0).reshape(2, 3, 4), torch.ones(5, dtype=torch.bfloat16))
    cache.put("key", features)
    found = cache.get("key", cpu)
    assert found is not None and all(map(torch.equal, found, features))
    (path,) = tmp_path.glob("*/*.features")
    written = path.read_bytes()
    for place in range(len(written)):
        path.write_bytes(written[:place] + bytes([written[place] ^ 1]) + written[place + 1 :])
        found = cache.get("key", cpu)
        # A flipped letter of the header's white space says the same.
        assert found is None or all(map(torch.equal, found, features))
    path.write_bytes(written[:-1] + bytes([written[-1] ^ 1]))
    assert cache.get("key", cpu) is None
    save_file({"layer1": features[0]}, path)  # of an earlier version, without a check sum
    assert cache.get("key", cpu) is None


def test_cache_keeps_within_its_limit_and_drops_what_is_oldest(tmp_path, caplog):
    features = (torch.zeros(1, 10, 10),)
    size = 400
    old = FeatureCache(tmp_path, "old", limit_bytes=10_000)
    for index in range(3):
        old.put(f"old{index}", features)
        os.utime(tmp_path / "old" / f"old{index}.features", (1000 - index, 1000 - index))
    on_disk = sum(path.stat().st_size for path in tmp_path.rglob("*.features"))
    cache = FeatureCache(tmp_path, "new", limit_bytes=on_disk + size)
    cpu = torch.device("cpu")
    cache.put("a", features)
    assert len(list((tmp_path / "old").iterdir())) == 3
    cache.put("b", features)  # the file that was used longest ago makes room
    assert sorted(path.stem for path in (tmp_path / "old").iterdir()) == ["old0", "old1"]
    for index in range(10):
        cache.put(f"c{index}", features)
    assert cache.get("a", cpu) is not None  # this run's own stay
    assert "raise --teacher-cache-gb" in caplog.text
    assert caplog.text.count("is full") == 1
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.features")) <= on_disk + 2 * size


def test_place_that_cannot_be_written_to_is_said_once_and_the_training_goes_on(teacher, images, caplog):
    from pathlib import Path

    guide = guidance(teacher, FeatureCache(Path("/dev/null/cache"), "a", limit_bytes=1 << 30))
    for batch in batches(images).epoch(1):
        guide(batch)
    assert caplog.text.count("computed anew each time") == 1


def test_weights_precision_and_layers_have_features_of_their_own(images, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    batch = next(iter(batches(images, probability=0.0).epoch(1)))
    for seed, precision, layers in (
        (0, "fp32", "l1+l2"),
        (1, "fp32", "l1+l2"),
        (0, "bf16", "l1+l2"),
        (0, "fp32", "l2"),
    ):
        torch.manual_seed(seed)
        teacher = build_teacher("stlm-tiny", weights="random", image_size=(64, 64))
        guide = make_guidance(
            teacher, spec=SPEC, layers=layers, precision=precision, compile_teacher="off", cache_gb=1.0
        )
        guide(batch)
    assert len(list((tmp_path / "stlm-edge" / "teacher-features").iterdir())) == 4


def test_half_precision_teacher_says_nearly_the_same_and_positions_stay_exact(images):
    torch.manual_seed(0)
    teacher = build_teacher("mobile_sam", weights="random", image_size=(64, 64))
    batch = next(iter(batches(images).epoch(1)))
    exact = guidance(teacher)(batch)
    half = guidance(teacher, precision="bf16")(batch)
    assert half.plain[0].dtype == torch.bfloat16
    for layer, wanted in zip(half.plain, exact.plain, strict=True):
        cosine = torch.nn.functional.cosine_similarity(layer.float(), wanted)
        assert cosine.min() > 0.995
    encoding = teacher.decoder.positional_encoding
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encoding((64, 64))
    assert torch.equal(rounded, encoding((64, 64)))


def test_precision_that_the_device_lacks_is_refused(teacher):
    with pytest.raises(ConfigError, match="fp16 on a CPU"):
        make_guidance(teacher, spec=SPEC, layers="l1", precision="fp16", compile_teacher="off", cache_gb=0.0)


def test_mask_teacher_gives_masks(images):
    teacher = build_teacher("stlm-tiny", weights="random", image_size=(64, 64), masks=True)
    assert isinstance(teacher, MaskTeacher)
    taught = guidance(teacher)(next(iter(batches(images).epoch(1))))
    assert [tuple(masks.shape) for masks in taught.plain] == [(3, 4, 16, 16)]


@pytest.mark.heavy
def test_altered_teacher_file_is_refused(tmp_path):
    from stlm_edge.errors import WeightsError

    save_file({"image_encoder.pos_embed": torch.zeros(1, 64, 64, 768)}, tmp_path / "half.safetensors")
    with pytest.raises(WeightsError, match="does not fit the teacher sam_vit_b"):
        build_teacher("sam_vit_b", weights=str(tmp_path / "half.safetensors"), image_size=(64, 64))
