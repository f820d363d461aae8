"""An engine like another one: the product, precision and target of its record."""

from __future__ import annotations

import dataclasses

import pytest

from export.again import builder_like
from export.gate.pictures import Pictures
from export.openvino import OpenVinoBuilder
from export.pipeline import OnnxBuilder
from export.tensorrt.build import PlanBuilder
from stlm_edge.errors import ConfigError
from stlm_edge.sidecar import EngineRecord, Sidecar
from stlm_edge.spec import ModelSpec

SPEC = ModelSpec("plate", "stlm-tiny", (64, 64), (64, 64), "0" * 64)
RECORD = EngineRecord(product="onnx", version="1", device="any", precision="fp32", engine_sha256="0" * 64)


def like(**said: str) -> object:
    return builder_like(Sidecar(SPEC, dataclasses.replace(RECORD, **said)), Pictures())


def test_builder_has_product_precision_and_target_of_the_engine():
    assert like(precision="fp16") == OnnxBuilder("fp16")
    assert like(product="openvino", precision="fp16", device="cpu") == OpenVinoBuilder("fp16")
    rtx = {"product": "tensorrt-rtx", "precision": "fp16"}
    assert like(**rtx, device="sm86,sm89") == PlanBuilder("fp16", "tensorrt-rtx", ("sm86", "sm89"))
    assert like(**rtx, device="sm80+") == PlanBuilder("fp16", "tensorrt-rtx")
    plan = {"product": "tensorrt", "precision": "int8", "device": "sm87"}
    assert like(**plan) == PlanBuilder("int8", "tensorrt")
    assert like(**plan, portability="runs on others") == PlanBuilder("int8", "tensorrt", portable=True)


def test_unknown_product_is_told():
    with pytest.raises(ConfigError, match="of the product 'ncnn', expected onnx, openvino, tensorrt"):
        like(product="ncnn")
