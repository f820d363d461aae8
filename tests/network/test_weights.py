"""MobileSAM's weights, through the real `mobile_sam` package and files of the right structure."""

from __future__ import annotations

import copy
import dataclasses
import os
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stlm_edge.errors import WeightsError
from stlm_edge.network.design import Design
from stlm_edge.network.encoder import ARCHITECTURES
from stlm_edge.network.initial import load_initial, load_mobile_sam
from stlm_edge.network.stlm import Stlm
from stlm_edge.network.weights import fingerprint, locate, read_tensors


@pytest.fixture(scope="module")
def mobile_sam():
    """The real package's network with random weights and batch statistics."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package uses timm's old module names
        from mobile_sam import sam_model_registry

        torch.manual_seed(1)
        model = sam_model_registry["vit_t"]()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    for name, parameter in model.named_parameters():
        if "attention_biases" in name:
            torch.nn.init.normal_(parameter)
    return model.train().eval()  # once more, to drop a stale attention-bias cache


@pytest.fixture(scope="module")
def mobile_sam_file(mobile_sam, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "own.pt"
    torch.save(mobile_sam.state_dict(), path)
    return path


@pytest.mark.heavy
@torch.no_grad()
def test_both_streams_and_the_decoder_compute_what_mobile_sam_does(mobile_sam, mobile_sam_file):
    network = Stlm(ARCHITECTURES["stlm"]).eval()
    report = load_mobile_sam(network, mobile_sam_file)
    pixels = torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(0))
    wanted = mobile_sam.image_encoder(pixels)
    assert (network.plain(pixels) - wanted).abs().max() < 1e-4
    assert (network.denoising(pixels) - wanted).abs().max() < 1e-4

    prompts = mobile_sam.prompt_encoder
    decoder = mobile_sam.mask_decoder
    tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).unsqueeze(0)
    dense = prompts.no_mask_embed.weight.reshape(1, 256, 1, 1)
    _, keys = decoder.transformer(wanted + dense, prompts.get_dense_pe(), tokens)
    assert (network.decoder(wanted)[1] - keys.transpose(1, 2).reshape(wanted.shape)).abs().max() < 1e-4

    assert set(report.loaded) == {"plain", "denoising", "decoder"}
    assert set(report.left_random) == {"feature_aggregation"}
    assert "image_encoder.head" in report.unused
    assert "mask_decoder.output_upscaling" in report.unused


@pytest.mark.heavy
@pytest.mark.parametrize("decoder", ["shared", "separate"])
def test_random_encoders_leave_decoder_and_tokens_mobile_sams_weights(decoder, mobile_sam, mobile_sam_file):
    torch.manual_seed(0)
    network = Stlm(ARCHITECTURES["stlm"], Design(decoder=decoder))
    before = copy.deepcopy(network.state_dict())
    report = load_initial(network, mobile_sam_file, random_encoders=True)
    decoders = {"decoder"} | ({"denoising_decoder"} if decoder == "separate" else set())
    assert set(report.loaded) == decoders
    assert set(report.left_random) == {"plain", "denoising", "feature_aggregation"}
    assert "plain stays random: random_encoders" in str(report)
    for name, tensor in network.state_dict().items():
        if name.split(".")[0] not in decoders:
            assert torch.equal(tensor, before[name]), name
    for part in decoders:
        theirs = mobile_sam.mask_decoder
        assert torch.equal(network.get_submodule(part).mask_tokens.weight, theirs.mask_tokens.weight)
        for name, tensor in network.get_submodule(part).transformer.state_dict().items():
            assert torch.equal(tensor, theirs.transformer.state_dict()[name]), name


def test_checkpoint_gives_no_decoder_alone(tmp_path):
    network = Stlm(ARCHITECTURES["stlm-tiny"])
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="random_encoders goes with MobileSAM's weights"):
        load_initial(network, tmp_path / "model.safetensors", random_encoders=True)


def test_narrow_network_has_no_place_for_mobile_sams_weights(mobile_sam_file):
    with pytest.raises(WeightsError, match="fit stlm only"):
        load_initial(Stlm(ARCHITECTURES["stlm-tiny"]), mobile_sam_file)


@pytest.mark.heavy
def test_training_starts_from_mobile_sam_or_from_a_whole_checkpoint(mobile_sam_file, tmp_path):
    assert set(load_initial(Stlm(ARCHITECTURES["stlm"]), mobile_sam_file).loaded) == {"plain", "denoising", "decoder"}
    torch.manual_seed(1)
    trained, fresh = Stlm(ARCHITECTURES["stlm-tiny"]), Stlm(ARCHITECTURES["stlm-tiny"])
    path = tmp_path / "model.safetensors"
    save_file(trained.state_dict(), path)
    assert set(load_initial(fresh, path).loaded) == {"whole network"}
    assert fingerprint(fresh.state_dict()) == fingerprint(trained.state_dict())
    with pytest.raises(WeightsError, match="another architecture, expected one of stlm;"):
        load_initial(Stlm(ARCHITECTURES["stlm"]), path)


def test_file_of_another_network_is_refused(tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match="lacks"):
        load_mobile_sam(Stlm(ARCHITECTURES["stlm"]), path)


def test_pickled_code_is_refused_and_not_run(tmp_path):
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps({"weight": Evil()}, protocol=2))
    torch.save({"weight": Evil()}, tmp_path / "evil_zip.pt")
    for file in (path, tmp_path / "evil_zip.pt"):
        with pytest.raises(WeightsError, match="not a file of tensors"):
            read_tensors(file)
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"not a weights file at all"])
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_damaged_file_is_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not a file of tensors"):
        read_tensors(path)


def test_altered_published_file_is_refused_unopened(tmp_path):
    path = tmp_path / "mobile_sam.pt"
    path.write_bytes(b"something else")
    with pytest.raises(WeightsError, match="not the published mobile_sam"):
        read_tensors(path)


def test_unknown_name_lists_what_is_published(tmp_path):
    with pytest.raises(WeightsError, match="mobile_sam, sam_vit_b"):
        locate(str(tmp_path / "nothing"))


def test_fingerprint_depends_on_values_and_names_alone():
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1)}
    assert fingerprint(tensors) == fingerprint(dict(reversed(tensors.items())))
    assert fingerprint(tensors) != fingerprint(tensors | {"b": torch.zeros(1)})


TINY = ARCHITECTURES["stlm-tiny"]
FROZEN = Design(plain_stream="stlm-tiny")
HEAD = dataclasses.replace(FROZEN, comparison="plain")
ALONE = dataclasses.replace(FROZEN, aggregation="memory", memory=5)
"""What `--epochs 0` makes."""


def network_of(design: Design, *, seed: int = 0) -> Stlm:
    torch.manual_seed(seed)
    return Stlm(TINY, design, image_size=(64, 64))


def written(path: Path, design: Design) -> tuple[Path, dict[str, torch.Tensor]]:
    tensors = network_of(design, seed=1).state_dict()
    save_file(tensors, path, metadata={"design": design.to_json()})
    return path, tensors


@pytest.mark.parametrize("learns", [FROZEN, HEAD])
@pytest.mark.parametrize("way", ["to a head", "from a head"])
def test_frozen_plain_stream_goes_from_a_checkpoint_to_another_that_has_only_it_in_common(learns, way, tmp_path):
    offered, wanted = (ALONE, learns) if way == "to a head" else (learns, ALONE)
    path, tensors = written(tmp_path / "model.safetensors", offered)
    network = network_of(wanted)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    report = load_initial(network, path)
    plain = {name for name in before if name.startswith("plain.")}
    assert report.gives_plain and dict(report.loaded) == {"plain": len(plain)}
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, (tensors if name in plain else before)[name])
    told = str(report)
    assert ("feature_aggregation stays random: the checkpoint has none" in told) == (way == "to a head")
    assert ("not used from the file: " in told) == (way == "from a head")


@pytest.mark.parametrize(
    ("offered", "wanted"),
    [(HEAD, FROZEN), (FROZEN, HEAD), (Design(), HEAD), (Design(), ALONE), (ALONE, Design()), (HEAD, Design())],
)
def test_checkpoint_of_another_design_is_refused_as_one(offered, wanted, tmp_path):
    path, _ = written(tmp_path / "model.safetensors", offered)
    with pytest.raises(WeightsError, match="is a checkpoint of another architecture, expected one of stlm-tiny"):
        load_initial(network_of(wanted), path)


def test_checkpoint_with_another_backbone_of_the_same_shapes_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    other = dataclasses.replace(ALONE, plain_stream="timm:test_efficientnet")
    save_file(network_of(ALONE).state_dict(), path, metadata={"design": other.to_json()})
    with pytest.raises(WeightsError, match="is a checkpoint of another architecture"):
        load_initial(network_of(ALONE), path)


def test_network_that_learns_nothing_takes_no_weights_but_a_checkpoints(tmp_path):
    path = tmp_path / "own.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match=r"own\.safetensors is no checkpoint of this toolkit"):
        load_initial(network_of(ALONE), path)
