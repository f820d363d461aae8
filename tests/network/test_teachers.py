"""Teachers by name: what they make of pictures, and where their weights may come from."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from stlm_edge.errors import ConfigError, DownloadError, WeightsError
from stlm_edge.network import teachers
from stlm_edge.network.decoder import Features
from stlm_edge.network.design import Design, Layers
from stlm_edge.network.encoder import ARCHITECTURES
from stlm_edge.network.stlm import Stlm
from stlm_edge.network.teachers import give_weights, hub, packages, teacher_named
from stlm_edge.network.teachers.base import Teacher, Weights
from stlm_edge.network.teachers.packages import PACKAGED, Packaged, package_of
from stlm_edge.network.teachers.timm_backbone import TimmTeacher
from stlm_edge.spec import ModelSpec

SMALL = "test_resnet"
"""The smallest of timm's with an ordinary shape: 0.5 M parameters."""
SIZE = (64, 96)
CHANNELS = 64


def backbone(name: str = SMALL, *, channels: int = CHANNELS) -> TimmTeacher:
    torch.manual_seed(0)
    teacher = teacher_named(f"timm:{name}", image_size=SIZE, channels=channels)
    assert isinstance(teacher, TimmTeacher)
    return teacher


def pixels(count: int = 4, *, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


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
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    monkeypatch.setattr("stlm_edge.network.teachers.packages.PACKAGED", {})
    return tmp_path / "cache"


def has_tensors(teacher: TimmTeacher, tensors: dict[str, torch.Tensor]) -> bool:
    found = {name: tensor for name, tensor in teacher.encoder.state_dict().items() if tensor.is_floating_point()}
    assert found
    return all(torch.equal(tensor, tensors[name]) for name, tensor in found.items())


@pytest.mark.parametrize("name", [SMALL, "test_efficientnet", "test_convnext"])
def test_backbone_gives_maps_at_strides_8_and_16_and_layers_of_the_wanted_width(name: str) -> None:
    teacher = backbone(name)
    teacher.settle(pixels())
    fine, coarse = teacher.maps(pixels())
    assert (fine.shape[1], coarse.shape[1]) == teacher.map_channels
    assert (fine.shape[2:], coarse.shape[2:]) == ((8, 12), (4, 6))
    assert [layer.shape for layer in teacher(pixels())] == [(4, CHANNELS, 4, 6)] * 2
    assert len(teacher(pixels(), "l1")) == len(teacher(pixels(), "l2")) == 1
    for layer, other in zip(teacher(pixels()), teacher.features_of((fine, coarse)), strict=True):
        assert torch.equal(layer, other)


@pytest.mark.heavy
def test_backbone_with_channels_last_gives_the_same_shapes() -> None:
    teacher = teacher_named("timm:swin_tiny_patch4_window7_224", image_size=(224, 224), channels=CHANNELS)
    teacher.settle(torch.randn(2, 3, 224, 224))
    fine, coarse = teacher.maps(torch.randn(1, 3, 224, 224))
    assert (fine.shape, coarse.shape) == ((1, 192, 28, 28), (1, 384, 14, 14))


def test_backbone_sees_pixels_normalised_as_timm_says() -> None:
    teacher = backbone("tf_efficientnet_lite0")
    spec = ModelSpec("", "", SIZE, SIZE, "")
    rgb = torch.rand(1, 3, 4, 4) * 255
    std, mean = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (spec.pixel_std, spec.pixel_mean))
    ours = (rgb - mean) / std
    assert torch.allclose(ours * teacher.scale + teacher.offset, (rgb / 255 - 0.5) / 0.5, atol=1e-6)


def test_settled_layers_are_uncorrelated_main_components_of_the_good_pictures() -> None:
    teacher, seen = backbone(channels=16), pixels(8)
    teacher.settle(seen)
    rows = teacher(seen, "l1")[0].double().permute(0, 2, 3, 1).flatten(0, 2)
    covariance = rows.T @ rows / len(rows)
    variances = covariance.diagonal()
    assert rows.mean(dim=0).abs().max() < 1e-3
    assert (variances[:-1] >= variances[1:] - 1e-6).all()
    assert variances[0] > 2 * variances[-1]
    assert (covariance - torch.diag(variances)).abs().max() < 1e-3 * variances[0]


def test_narrow_backbone_leaves_channels_that_it_cannot_fill_zero() -> None:
    teacher = backbone("test_efficientnet", channels=256)
    teacher.settle(pixels())
    filled = 2 * teacher.map_channels[0] + teacher.map_channels[1]
    layer = teacher(pixels(), "l1")[0]
    assert layer.shape[1] == 256
    assert layer[:, filled:].abs().max() == 0
    assert layer[:, 0].std() > 0.1


def test_what_was_settled_is_in_the_state() -> None:
    teacher, other = backbone(), backbone()
    teacher.settle(pixels())
    other.load_state_dict(teacher.state_dict())
    assert torch.equal(teacher(pixels(), "l1")[0], other(pixels(), "l1")[0])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm:nonsense", r"knows no backbone 'nonsense'; name one of timm\.list_models\(\)"),
        ("timm:hf-hub:someone/network", "knows no backbone"),
        ("timm:", "teacher is 'timm:', expected one of sam_vit_h, .* or timm:NAME"),
        ("resnet18", "teacher is 'resnet18', expected one of sam_vit_h, .* or timm:NAME"),
        ("timm:test_vit", r"has features at strides 16, 16.*, expected 8 and 16 among them; take a convolutional"),
    ],
)
def test_name_that_is_no_teacher_is_refused_in_one_line(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        teacher_named(name, image_size=SIZE, channels=CHANNELS)
    assert "\n" not in str(caught.value)


def test_pictures_of_a_size_that_a_backbone_cannot_take_are_refused() -> None:
    teacher = teacher_named("timm:swin_tiny_patch4_window7_224", image_size=SIZE, channels=CHANNELS)
    with pytest.raises(ConfigError, match=r"cannot take pictures of 64 x 96 .*; give another --image-size"):
        teacher.settle(pixels())


@pytest.mark.parametrize("kind", ["safetensors", "torch", "wrapped", "without classifier", "another classifier"])
def test_file_of_the_whole_network_is_taken(kind: str, tmp_path: Path, published: dict[str, torch.Tensor]) -> None:
    path, tensors = tmp_path / "weights.pth", dict(published)
    if kind == "without classifier":
        del tensors["fc.weight"], tensors["fc.bias"]
    if kind == "another classifier":
        tensors |= {"fc.weight": torch.ones(7, 9), "fc.bias": torch.ones(7)}
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


def wrong(kind: str, tensors: dict[str, torch.Tensor], path: Path) -> Path:
    first = next(iter(tensors))
    if kind == "lacks one":
        tensors = {name: tensor for name, tensor in tensors.items() if name != first}
    elif kind == "lacks a mean":
        tensors = {name: tensor for name, tensor in tensors.items() if name != "layer1.0.bn1.running_mean"}
    elif kind == "another shape":
        tensors = tensors | {first: torch.zeros(3, 3)}
    elif kind == "more":
        tensors = tensors | {"layer9.weight": torch.zeros(3)}
    elif kind == "another network":
        tensors = timm.create_model("test_efficientnet").state_dict()
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("kind", ["lacks one", "lacks a mean", "another shape", "more", "another network"])
def test_weights_of_another_are_refused_and_nothing_of_them_taken(
    kind: str, tmp_path: Path, published: dict[str, torch.Tensor]
) -> None:
    """What a file lacks would stay random without a word."""
    path = wrong(kind, published, tmp_path / "weights.safetensors")
    teacher, before = backbone(), backbone().state_dict()
    with pytest.raises(WeightsError, match=rf"weights.safetensors does not fit timm:{SMALL} .*give the file that"):
        teacher.load(str(path))
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert not teacher.has_weights


def test_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "optimiser": pytest.raises}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="is not a file of tensors"):
        backbone().load(str(tmp_path / "weights.pth"))


@pytest.mark.heavy  # a library's import tries a socket
def test_published_weights_come_from_timms_cache_without_network(
    nothing_answers: Path, published: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    record = timm.get_pretrained_cfg(SMALL)
    kept = nothing_answers / f"models--{record.hf_hub_id.replace('/', '--')}"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0" * 40)
    (kept / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(published, kept / "snapshots" / ("0" * 40) / "model.safetensors")
    teacher = backbone()
    with caplog.at_level(logging.INFO):
        give_weights(teacher, name=SMALL, weights="published")
    assert has_tensors(teacher, published)
    assert "model.safetensors, licence " in caplog.text


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("name", "file"), [(SMALL, "resolve/main/model.safetensors"), ("legacy_seresnet18", "legacy_seresnet18")]
)
def test_published_weights_that_cannot_be_had_say_which_file_to_bring(
    name: str, file: str, nothing_answers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = timm.get_pretrained_cfg(name)
    if not record.hf_hub_id:
        monkeypatch.setattr(hub.timm, "get_pretrained_cfg", lambda _: record)
        record.url = f"http://127.0.0.1:9/{name}.pth"
    with pytest.raises(
        DownloadError, match=rf"are not in {nothing_answers}.*bring http://127.0.0.1:9/.*{file}.* and give"
    ):
        backbone(name).load("published")


def test_offline_nobody_is_asked(nothing_answers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.urllib.request, "urlopen", pytest.fail)
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE is set"):
        backbone().load("published")


def test_backbone_without_published_weights_says_so(nothing_answers: Path) -> None:
    with pytest.raises(WeightsError, match="no published weights of efficientnet_b8; name another one"):
        hub.published_file("efficientnet_b8")


@pytest.mark.parametrize("name", PACKAGED)
def test_package_that_is_installed_has_the_published_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip(PACKAGED[name].package)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    teacher = backbone(name)
    with caplog.at_level(logging.INFO):
        give_weights(teacher, name=f"timm:{name}", weights="published")
    assert "licence Apache-2.0" in caplog.text
    stem = torch.load(PACKAGED[name].find(), weights_only=True)["_conv_stem.weight"]
    assert torch.equal(teacher.encoder.state_dict()["conv_stem.weight"], stem)
    assert package_of(f"{name}.in1k") == PACKAGED[name]
    assert package_of(f"{name}.other") is None


def test_package_that_is_not_installed_is_named(nothing_answers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Packaged("no_such_package_model", "x.pth", "0" * 64)
    monkeypatch.setattr(packages, "PACKAGED", {SMALL: missing})
    monkeypatch.setattr(packages, "package_of", lambda _: missing)
    monkeypatch.setattr("stlm_edge.network.teachers.timm_backbone.package_of", lambda _: missing)
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
    with pytest.raises(WeightsError, match="is not the file of weights that it should be; install altered-model"):
        Packaged("altered_model", "weights.pth", "0" * 64).find()


class Brightness(Teacher):
    """A teacher more, as CONTRIBUTING says how to add one."""

    needs_weights = False

    def __init__(self) -> None:
        super().__init__(torch.nn.AvgPool2d(16), channels=3)

    def forward(self, pixels: torch.Tensor, layers: Layers = "l1+l2") -> Features:
        layer: torch.Tensor = self.encoder(pixels)
        return (layer, layer) if layers == "l1+l2" else (layer,)

    def load(self, weights: Weights) -> str:
        raise WeightsError("it has none")


def test_teacher_more_is_a_class_and_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stlm_edge.network.design.TEACHERS", ("brightness",))
    monkeypatch.setitem(teachers._MAKERS, "brightness", lambda _name, *, image_size: Brightness())
    assert isinstance(teacher_named("brightness", image_size=SIZE, channels=CHANNELS), Brightness)
    with pytest.raises(ConfigError, match="brightness in the plain stream's place has 3 channels"):
        Stlm(ARCHITECTURES["stlm-tiny"], Design(plain_stream="brightness"), image_size=SIZE)
