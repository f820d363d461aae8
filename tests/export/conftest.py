"""The demo's trained network exported once, drawn parts to judge it by, and plans for a GPU that need not be there."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

import train
from export.__main__ import main
from export.graph.onnx_model import spec_of
from export.tensorrt.product import find_product
from stlm_edge.files import sha256
from stlm_edge.plate.part import write_dataset
from stlm_edge.sidecar import Sidecar

PLATE = Path(train.__file__).parent / "pretrained/plate/model.safetensors"
BIAS = "feature_aggregation.head.out.bias"

Alter = Callable[[onnx.ModelProto], None]


@pytest.fixture(scope="session")
def plate_data(tmp_path_factory) -> Path:
    """3 good training, 6 good and 4 defective test pictures, with masks, in MVTec AD's layout."""
    root = tmp_path_factory.mktemp("data")
    write_dataset(root, train=3, test_good=6, test_defective_per_kind=1, size=(120, 140), seed=3, category="plate")
    return root / "plate"


@pytest.fixture(scope="session")
def exported(tmp_path_factory, plate_data) -> Path:
    path = tmp_path_factory.mktemp("exported") / "plate.onnx"
    assert main(["onnx", str(PLATE), "-o", str(path), "--data", str(plate_data)]) == 0
    return path


@pytest.fixture
def engine(exported, tmp_path) -> Path:
    """A copy of the exported graph with its sidecar, to be changed at will."""
    path = tmp_path / "plate.onnx"
    for source, target in ((exported, path), (Sidecar.path_for(exported), Sidecar.path_for(path))):
        shutil.copy(source, target)
    return path


def alter(path: Path, change: Alter, *, precision: str = "fp32") -> None:
    """Change a graph and have its sidecar vouch for the new one, as a faulty export would."""
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    sidecar = Sidecar.read(path)
    record = dataclasses.replace(sidecar.engine, engine_sha256=sha256(path), precision=precision, gate=None)
    dataclasses.replace(sidecar, engine=record).write(path)


def shift_bias(by: float) -> Alter:
    """Add to what stands before the last sigmoid."""

    def change(model: onnx.ModelProto) -> None:
        (bias,) = [item for item in model.graph.initializer if item.name.endswith(BIAS)]
        bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + by, bias.name))

    return change


BuildPlan = Callable[[onnx.ModelProto], tuple[bytes, list[str]]]


@pytest.fixture(scope="session")
def build_plan() -> BuildPlan:
    """Builds a plan for SM 8.6 by TensorRT-RTX; gives it and the compiler's messages."""
    pytest.importorskip("tensorrt_rtx")
    product = find_product("tensorrt-rtx")

    def build(model: onnx.ModelProto) -> tuple[bytes, list[str]]:
        messages: list[str] = []
        compiled = product.compile(
            model.SerializeToString(),
            spec=spec_of(model, Path("graph.onnx")),
            targets=("sm86",),
            on_log=lambda _, message: messages.append(message),
        )
        return bytes(compiled.plan), messages

    return build
