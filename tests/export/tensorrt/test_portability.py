"""Plans for more than one model of GPU: which way each TensorRT has, and who is told that there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from export.tensorrt.portability import choose_portability
from export.tensorrt.product import Product, find_product
from stlm_edge.errors import ConfigError, EngineError
from stlm_edge.spec import ModelSpec

from ...fake_tensorrt import fake_tensorrt

SPEC = ModelSpec(
    category="plate", architecture="stlm-tiny", input_size=(64, 96), map_size=(4, 6), weights_sha256="0" * 64
)


@pytest.mark.parametrize(
    ("version", "gpu", "level", "device"),
    [
        ("10.3.0", "sm86", "AMPERE_PLUS", "sm80+"),
        ("10.9.0", "sm86", "SAME_COMPUTE_CAPABILITY", "sm86"),
        ("11.4.0", "sm75", "SAME_COMPUTE_CAPABILITY", "sm75"),
        ("11.4.0", "sm120", "SAME_COMPUTE_CAPABILITY", "sm120"),
    ],
)
def test_narrowest_way_of_each_version_reaches_the_build(version, gpu, level, device):
    product = Product("tensorrt", fake_tensorrt(version))
    found = choose_portability(product, gpu)
    assert (found.level, found.device) == (level, device)
    assert f"every GPU {'of' if device == gpu else 'from'} {device.rstrip('+')}" in found.words
    assert "may be slower than a plan for one model of GPU" in found.words
    built = json.loads(product.compile(b"graph", spec=SPEC, portability=found.level).plan)
    assert built["compatibility"] == level
    assert json.loads(product.compile(b"graph", spec=SPEC).plan)["compatibility"] == "NONE"


@pytest.mark.parametrize(("version", "gpu"), [("10.3.0", "sm75"), ("11.4.0", "sm70")])
def test_gpu_that_is_too_old_for_it_is_one_line(version, gpu):
    with pytest.raises(EngineError, match=rf"found --portable on {gpu}, TensorRT .* expects sm.*; leave it out"):
        choose_portability(Product("tensorrt", fake_tensorrt(version)), gpu)


def test_jetson_is_told_that_tensorrt_does_not_support_it_there(tmp_path):
    board = tmp_path / "compatible"
    board.write_bytes(b"nvidia,p3737-0000+p3701-0000\0nvidia,tegra234\0")
    product = Product("tensorrt", fake_tensorrt("10.3.0"))
    with pytest.raises(EngineError, match=r"found --portable on a Jetson, .*; leave it out and build on each model"):
        choose_portability(product, "sm87", board=board)
    board.write_bytes(b"raspberrypi,5-model-b\0")
    assert choose_portability(product, "sm87", board=board).level == "AMPERE_PLUS"


def test_tensorrt_rtx_needs_no_such_option():
    with pytest.raises(ConfigError, match=r"TensorRT-RTX \S+ builds for every GPU from sm80 on .*; leave it out"):
        choose_portability(find_product("tensorrt-rtx"), "sm80+", board=Path("/nowhere"))
