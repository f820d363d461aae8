"""Each ablation of the paper is a preset that trains, and that changes what it says it changes."""

from __future__ import annotations

import copy
import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from stlm_edge.datasets import load_category
from stlm_edge.errors import ConfigError
from stlm_edge.network.checkpoint import load
from stlm_edge.network.comparison import StreamFeatures, compare, tlm_map
from stlm_edge.network.design import Design
from stlm_edge.network.encoder import ARCHITECTURES
from stlm_edge.network.inference import InferencePath
from stlm_edge.network.initial import draw_start
from stlm_edge.network.stlm import Stlm
from stlm_edge.network.teachers.base import Teacher
from stlm_edge.spec import ModelSpec
from tests.settings import TWO_STREAMS
from train.config import from_dict, load_preset, presets
from train.data import Batches, load_images
from train.distributed import Processes
from train.fit import fit
from train.pseudo_anomalies.choice import pseudo_anomalies_of
from train.pseudo_anomalies.textures import ProceduralTextures
from train.start import build
from train.teaching.teacher import MaskHead
from train.training import begin

SMALL = {
    "architecture": "stlm-tiny",
    "image_size": (128, 128),
    "epochs": 2,
    "teacher_weights": "random",
    "initial_weights": "random",
    "workers": 0,
    "device": "cpu",
}
"""Two steps at 128 x 128; the teacher is narrow too, where the preset has a large one."""

ABLATIONS = [name for name in presets() if name.startswith(("table", "figure"))]

FITTED = (
    "figure5-separate-decoders",
    "table9-logits",
    "table6-concat",
    "table4-no-aggregation",
    "cpu",
    "gabor",
)
"""One of each kind that no other test fits: another decoder, another thing to distil, another comparison, no head, no
second stream, filters."""

NAMES = [*ABLATIONS, "cpu", "gabor"]


def settings(name: str, **changes):
    preset = load_preset(TWO_STREAMS) | {"teacher": "gabor"} if name == "gabor" else load_preset(name)
    values = preset | SMALL | changes
    if values.get("random_encoders"):  # of MobileSAM's weights, which no narrow network takes
        values["random_encoders"] = False
    if values["teacher"] not in ("none", "mobile_sam", "gabor"):
        values["teacher"] = "stlm-tiny"
    return from_dict(values)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A folder of three good pictures: one is held out, two make one step."""
    from stlm_edge.plate.part import write_dataset

    root = tmp_path_factory.mktemp("three")
    write_dataset(root, train=3, test_good=0, test_defective_per_kind=0, size=(128, 128), seed=0, category="plate")
    return root / "plate" / "train" / "good"


@pytest.fixture(scope="module")
def images(three):
    return load_images(load_category(three, None).train, size=(128, 128), skip_corrupt=False)


@pytest.mark.heavy
@pytest.mark.parametrize("name", NAMES)
def test_every_ablation_learns_in_one_step(name, images):
    """Forward, losses, backward and one move of the weights, as `fit` does it."""
    config = settings(name)
    spec = ModelSpec("three", config.architecture, config.image_size, config.image_size, "")
    pseudo = pseudo_anomalies_of(config, images=images, textures=ProceduralTextures(), category="plate")
    folds = range(len(images)) if config.heads > 1 else ()
    batches = Batches(images, pseudo_anomalies=pseudo, batch_size=2, seed=config.seed, folds=folds)
    objective, guidance = build(config, spec, batches, device=torch.device("cpu"), processes=Processes())
    network = objective.network
    assert network.design == dataclasses.replace(config.design, memory=0)  # which is filled after the last epoch
    training = begin(objective, config, steps_per_epoch=1)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    batch = next(iter(batches.epoch(1)))
    terms = objective(batch, guidance(batch) if guidance is not None else None)
    assert terms.values().isfinite().all()
    assert (terms.total > 0).item()
    terms.total.backward()
    training.move()
    moved = {name.split(".")[0] for name, tensor in network.named_parameters() if not torch.equal(tensor, before[name])}
    learns = {name for name, part in network.named_children() if any(True for _ in part.parameters())}
    assert moved == learns - ({"plain"} if isinstance(network.plain, Teacher) else set())
    with torch.no_grad():
        anomaly_map, score = InferencePath(network, spec).eval()(torch.zeros(1, 128, 128, 3, dtype=torch.uint8))
    assert anomaly_map.shape == (1, 128, 128)
    assert score.isfinite().all()


@pytest.mark.heavy
@pytest.mark.parametrize("name", FITTED)
def test_ablation_trains_and_its_checkpoint_inspects(name, three, tmp_path):
    config = settings(name)
    path = fit(config, data=three, category=None, textures=None, output=tmp_path / "run")
    loaded = load(path)
    remembered = min(config.memory, 3 * (128 // 8) ** 2)
    assert loaded.network.design == dataclasses.replace(config.design, memory=remembered)
    anomaly_map, score = InferencePath(loaded.network, loaded.spec).eval()(
        torch.zeros(1, 128, 128, 3, dtype=torch.uint8)
    )
    assert anomaly_map.shape == (1, 128, 128)
    assert score.isfinite().all()


def test_every_ablation_differs_from_the_paper_in_what_it_names():
    named = {
        "table4-mobile-teacher": {"teacher"},
        "table4-no-plain-stream": {"plain_stream"},
        "table4-no-decoder": {"layers"},
        "table4-no-aggregation": {"aggregation"},
        "table5-two-stage": {"streams_first"},
        "table6": {"comparison"},
        "table7": {"teacher"},
        "table8": {"random_encoders"},
        "table9": {"distillation"},
        "table10": {"anomaly_probability"},
        "table11": {"pseudo_anomalies"},
        "figure5": {"decoder"},
        "figure6": {"aggregation"},
        "figure10": {"anomaly_probability"},
        "figure11": {"layers"},
    }
    paper = load_preset("paper")
    for name in ABLATIONS:
        changed = {key for key, value in load_preset(name).items() if paper.get(key) != value}
        assert changed == named.get(name, named.get(name.split("-")[0])), name


def parameters(**design) -> int:
    network = Stlm(ARCHITECTURES["stlm"], Design(**design))
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.heavy
def test_designs_have_the_parts_that_the_paper_describes():
    whole = parameters()
    decoder = 3_291_264 + 1_280 + 256
    assert parameters(decoder="separate") == whole + decoder
    assert whole - parameters(layers="l1") == decoder + 256 * 9 * 128 + 256 * 128  # first block sees one layer
    assert parameters(layers="l2") == whole - 256 * 9 * 128 - 256 * 128
    assert whole - parameters(aggregation="none") == 1_870_465
    assert parameters(layers="block1+block2") == whole
    assert parameters(layers="l2") - parameters(layers="block1") == 1_579_520  # the second block
    original = Stlm(ARCHITECTURES["stlm"], Design(aggregation="original")).feature_aggregation
    assert original is not None
    assert [name for name, _ in original.aspp.named_children()] == ["pool", "rate6", "rate12", "rate18", "fuse"]
    assert original.res[0].conv1.out_channels == 256
    inputs = {"product": 512, "cosine": 2, "subtraction": 1024, "concat": 1024}
    for comparison, channels in inputs.items():
        network = Stlm(ARCHITECTURES["stlm"], Design(comparison=comparison))
        assert network.feature_aggregation is not None
        assert network.feature_aggregation.res[0].conv1.in_channels == channels


def test_comparisons_are_what_table_6_says():
    rng = torch.Generator().manual_seed(0)
    features = StreamFeatures(
        plain=(torch.randn(2, 8, 3, 4, generator=rng),), denoising=(torch.randn(2, 8, 3, 4, generator=rng),)
    )
    plain, denoising = (
        stream[0] / stream[0].norm(dim=1, keepdim=True) for stream in (features.plain, features.denoising)
    )
    cosine = torch.nn.functional.cosine_similarity(features.plain[0], features.denoising[0])
    assert torch.allclose(compare(features, "product").sum(dim=1), -cosine, atol=1e-6)
    assert torch.allclose(compare(features, "cosine")[:, 0], 1 - cosine, atol=1e-6)
    assert torch.allclose(
        compare(features, "subtraction"), torch.cat([denoising, (plain - denoising).abs()], 1), atol=1e-6
    )
    assert torch.allclose(compare(features, "concat"), torch.cat([plain, denoising], 1), atol=1e-6)
    assert torch.allclose(tlm_map(features)[:, 0], 1 - cosine, atol=1e-6)


@torch.no_grad()
def test_separate_decoders_decode_each_stream_with_its_own():
    torch.manual_seed(0)
    network = Stlm(ARCHITECTURES["stlm-tiny"], Design(decoder="separate")).eval()
    pixels = torch.randn(1, 3, 64, 64)
    before = network.features(pixels)
    network.denoising_decoder.no_mask_embed.weight += 1
    after = network.features(pixels)
    assert torch.equal(before.plain[1], after.plain[1])
    assert not torch.equal(before.denoising[1], after.denoising[1])


@pytest.mark.heavy
def test_fixed_teacher_as_plain_stream_neither_learns_nor_leaves_evaluation_mode(three, tmp_path):
    config = settings("table4-no-plain-stream")
    network = load(fit(config, data=three, category=None, textures=None, output=tmp_path / "run")).network
    assert isinstance(network.plain, Teacher)
    torch.manual_seed(config.seed)  # the teacher is built right after the network, from the same random numbers
    beginning = Stlm(ARCHITECTURES["stlm-tiny"], config.design, image_size=(128, 128))
    draw_start(beginning, aggregation=config.aggregation_start, encoders=config.encoder_start)
    from stlm_edge.network.teachers.sam import sam_teacher

    teacher = sam_teacher("stlm-tiny", image_size=(128, 128))
    trained = dict(network.plain.named_parameters())
    assert all(torch.equal(value, trained[name]) for name, value in teacher.named_parameters())
    network.train()
    assert not network.plain.training


@pytest.mark.heavy
def test_two_stages_train_one_part_after_the_other(three, tmp_path, monkeypatch):
    """In the first the feature aggregation stays as it began; in the second streams and decoder stand still."""
    snapshots = []
    monkeypatch.setattr("train.fit.save", lambda _, made: snapshots.append(copy.deepcopy(made.network.state_dict())))
    assert settings("table5-two-stage").streams_first == 0.2  # 1,000 of DeSTSeg's 5,000 steps
    config = settings("table5-two-stage", epochs=4, streams_first=0.5)
    fit(config, data=three, category=None, textures=None, output=tmp_path / "run")
    records = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert all(record["segmentation"] == 0 < record["plain"] for record in records[:2])
    assert all(record["plain"] == 0 < record["segmentation"] for record in records[2:])

    def changed(before: int, after: int) -> set[str]:
        return {n.split(".")[0] for n, t in snapshots[before].items() if not torch.equal(t, snapshots[after][n])}

    assert changed(0, 1) == {"plain", "denoising", "decoder"}
    assert changed(1, 2) == changed(2, 3) == {"feature_aggregation"}


@pytest.mark.heavy
def test_without_teacher_only_the_segmentation_is_learnt(three, tmp_path):
    path = fit(settings("table7-no-teacher"), data=three, category=None, textures=None, output=tmp_path / "run")
    for line in (path.parent / "history.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert record["plain"] == record["denoising"] == 0 < record["segmentation"]


@torch.no_grad()
def test_masks_are_those_of_sam():
    """Against segment-anything's own mask decoder, with its weights and without prompts."""
    from segment_anything.modeling import MaskDecoder, TwoWayTransformer

    from stlm_edge.network.decoder import TwoWayDecoder
    from train.teaching.teacher import mask_head_tensors

    torch.manual_seed(0)
    transformer = TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
    sam = MaskDecoder(transformer_dim=256, transformer=transformer).eval()
    decoder, head = TwoWayDecoder().eval(), MaskHead(256).eval()
    decoder.transformer.load_state_dict(transformer.state_dict())
    decoder.iou_token.load_state_dict(sam.iou_token.state_dict())
    decoder.mask_tokens.load_state_dict(sam.mask_tokens.state_dict())
    head.load_state_dict(mask_head_tensors({f"mask_decoder.{name}": t for name, t in sam.state_dict().items()}))
    embedding = torch.randn(2, 256, 8, 8)
    dense = decoder.no_mask_embed.weight.reshape(1, 256, 1, 1)
    position = decoder.positional_encoding((8, 8)).unsqueeze(0)
    wanted = [
        sam.predict_masks(embedding[[index]], position, torch.zeros(1, 0, 256), dense.expand(1, 256, 8, 8))[0]
        for index in range(2)
    ]
    assert torch.allclose(head(decoder, embedding), torch.cat(wanted), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teacher": "none", "plain_stream": "teacher"}, "no such stream"),
        ({"teacher": "none", "aggregation": "none"}, "nothing to learn from"),
        ({"teacher": "none", "streams_first": 0.5}, "nothing to learn from"),
        ({"teacher": "none", "distillation": "logits"}, "no masks"),
        ({"aggregation": "none", "streams_first": 0.5}, "no second stage"),
        ({"layers": "l1", "distillation": "logits"}, "masks need both"),
        ({"layers": "block1+block2", "distillation": "logits"}, "masks need both"),
        ({"layers": "block1+block2", "teacher": "gabor"}, "teacher gabor, layers block1.block2: it has no decoder"),
        ({"layers": "block1", "teacher": "timm:resnet18"}, "it has no decoder"),
        ({"layers": "l1", "decoder": "separate"}, "no decoder"),
        ({"plain_stream": "teacher", "distillation": "logits"}, "never saw"),
        ({"random_encoders": True, "initial_weights": "random"}, "no weights to keep, which table 8 is about"),
        ({"random_encoders": True, "layers": "l1"}, "no decoder to take weights for"),
        ({"random_encoders": True, "epochs": 0, "memory": 9, "plain_stream": "teacher"}, "no decoder to take"),
        (
            {"random_encoders": True, "comparison": "plain", "plain_stream": "teacher", "teacher": "mobile_sam"},
            "no decoder to take weights for",
        ),
    ],
)
def test_settings_that_exclude_each_other_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        from_dict(changes)


def test_stand_in_without_a_decoder_has_no_features_of_blocks():
    with pytest.raises(ConfigError, match="layers block1: timm:resnet18 has no decoder"):
        Design(plain_stream="timm:resnet18", layers="block1")


def test_stand_in_for_the_plain_stream_must_be_as_wide():
    with pytest.raises(ConfigError, match="256 channels"):
        Stlm(ARCHITECTURES["stlm-tiny"], Design(plain_stream="mobile_sam"))


def test_map_without_aggregation_stays_below_4():
    torch.manual_seed(0)
    network = Stlm(ARCHITECTURES["stlm-tiny"], Design(aggregation="none")).eval()
    with torch.no_grad():
        values = network(torch.randn(1, 3, 64, 64)).numpy()
    assert np.all((values >= -1e-6) & (values <= 4 + 1e-6))
    assert not math.isclose(float(values.std()), 0)
