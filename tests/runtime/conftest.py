"""A real engine whose answer can be computed by hand, and pictures to show it."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from stlm_edge import EngineRecord, ModelSpec, Sidecar, Threshold
from stlm_edge.files import sha256
from stlm_edge.imaging import Image, write_image

INPUT_SIZE = (64, 128)
MAP_SIZE = (32, 64)
THRESHOLD = 0.5

SPEC = ModelSpec(
    category="plate",
    architecture="brightness",
    input_size=INPUT_SIZE,
    map_size=MAP_SIZE,
    weights_sha256="0" * 64,
    threshold=Threshold(value=THRESHOLD, method="quantile", images=20, false_alarm_rate=0.05),
)


def brightness_graph(*, factor: float = 1.0) -> onnx.ModelProto:
    """An engine that calls bright pixels anomalous: the map is the mean of the channels, the score its maximum.

    Args:
        factor: on the score; NaN for an engine whose arithmetic has failed.
    """
    height, width = INPUT_SIZE
    constants = [
        numpy_helper.from_array(np.array(255, np.float32), "white"),
        numpy_helper.from_array(np.array([1, 1, height, width], np.int64), "planar"),
        numpy_helper.from_array(np.array([1, *MAP_SIZE], np.int64), "map_shape"),
        numpy_helper.from_array(np.array([3], np.int64), "channels"),
        numpy_helper.from_array(np.array([1, 2], np.int64), "pixels"),
        numpy_helper.from_array(np.array(factor, np.float32), "factor"),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "white"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled", "channels"], ["grey"], keepdims=0),
        helper.make_node("Reshape", ["grey", "planar"], ["plane"]),
        helper.make_node("AveragePool", ["plane"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Reshape", ["pooled", "map_shape"], ["anomaly_map"]),
        helper.make_node("ReduceMax", ["anomaly_map", "pixels"], ["highest"], keepdims=0),
        helper.make_node("Mul", ["highest", "factor"], ["score"]),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, height, width, 3])],
        [
            helper.make_tensor_value_info("anomaly_map", TensorProto.FLOAT, [1, *MAP_SIZE]),
            helper.make_tensor_value_info("score", TensorProto.FLOAT, [1]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def write_engine(path: Path, *, model: onnx.ModelProto | None = None, spec: ModelSpec = SPEC) -> Path:
    """Save an engine and its sidecar."""
    onnx.save(model or brightness_graph(), path)
    record = EngineRecord(
        product="onnx",
        version=onnx.__version__,
        device="any",
        precision="fp32",
        engine_sha256=sha256(path),
    )
    Sidecar(spec=spec, engine=record).write(path)
    return path


def picture(value: int, *, spot: int | None = None, size: tuple[int, int] = (96, 192)) -> Image:
    """A grey picture, with a brighter or darker square in it."""
    image = np.full((*size, 3), value, np.uint8)
    if spot is not None:
        image[24:48, 48:72] = spot
    return image


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_engine(tmp_path_factory.mktemp("engine") / "plate.onnx")


@pytest.fixture
def mvtec_test_folder(tmp_path: Path) -> Path:
    """Two good parts, two scratched ones of which one is too dark to be found, and a truncated picture."""
    folder = tmp_path / "plate" / "test"
    for name, image in {
        "good/000.png": picture(60),
        "good/001.png": picture(80),
        "scratch/000.png": picture(60, spot=250),
        "scratch/001.png": picture(60, spot=100),
    }.items():
        write_image(folder / name, image)
    whole = (folder / "good" / "000.png").read_bytes()
    (folder / "scratch" / "002.png").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture
def limit_files() -> Iterator[Callable[[int], None]]:
    """As `ulimit -f` does, in bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
