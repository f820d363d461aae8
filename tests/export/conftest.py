"""What many tests of the export need, made once a session: one traced graph, its precisions and engines, pictures."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from export.graph.graph import Graph, GraphOptions, load_graph, read_graph
from export.precision.apply import Calibrated, calibrated, in_precision
from export.tensorrt.build import PlanBuilder
from export.tensorrt.product import find_product
from stlm_edge.files import sha256
from stlm_edge.imaging import Input, to_input, write_image
from stlm_edge.plate.part import render_part, write_dataset
from stlm_edge.sidecar import Sidecar

SIZE = (64, 96)
"""Of the pictures that `graph` takes."""
BIAS = "feature_aggregation.head.out.bias"
SM86 = PlanBuilder(targets=("sm86",))

Alter = Callable[[onnx.ModelProto], None]
Run = Callable[[onnx.ModelProto, Input], tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="session")
def graph(traced_engine) -> Graph:
    """Of the demo's trained network in float32."""
    return read_graph(traced_engine)


def form_once(make_once, small_checkpoint: Path, name: str, **options: Any) -> Graph:
    """`small_checkpoint` traced in another form."""
    folder = make_once(
        name, lambda folder: load_graph(small_checkpoint, GraphOptions(**options)).save(folder / "form.onnx")
    )
    return read_graph(folder / "form.onnx")


@pytest.fixture(scope="session")
def batched(make_once, small_checkpoint) -> Graph:
    """The same for up to four pictures at once, with the map at the input's size as well."""
    return form_once(make_once, small_checkpoint, "batched", full_map=True, max_batch=4)


@pytest.fixture(scope="session")
def stacked(make_once, small_checkpoint) -> Graph:
    """The same with both streams in one."""
    return form_once(make_once, small_checkpoint, "stacked", streams="stacked")


@pytest.fixture(scope="session")
def sums(make_once, small_checkpoint) -> Graph:
    """The same with local convolutions as sums of shifted products."""
    return form_once(make_once, small_checkpoint, "sums", local_conv="sums")


@pytest.fixture(scope="session")
def model(graph) -> onnx.ModelProto:
    """What `graph` consists of."""
    return graph.model


@pytest.fixture(scope="session")
def good(make_once) -> Path:
    """A folder of six good pictures."""

    def draw(folder: Path) -> None:
        for index in range(6):
            image = render_part(np.random.default_rng(index), size=(100, 140), defect=None).image
            write_image(folder / f"{index}.png", image)

    return make_once("good", draw)


@pytest.fixture(scope="session")
def half(graph, good) -> Graph:
    """In FP16, by ranges of the good pictures."""
    return in_precision(graph, "fp16", good=good)


@pytest.fixture(scope="session")
def given(graph, good) -> Calibrated:
    """Calibrated for INT8 by the good pictures."""
    return calibrated(graph, good, count=6, seed=0)


@pytest.fixture(scope="session")
def pictures(graph) -> list[Input]:
    """Three pictures that were not calibrated on, one with a defect."""
    kinds = (None, "scratch", None)
    return [
        to_input(render_part(np.random.default_rng(50 + index), size=(100, 140), defect=kind).image, spec=graph.spec)
        for index, kind in enumerate(kinds)
    ]


@pytest.fixture(scope="session")
def run() -> Run:
    """Runs a model on the processor: map and score of one picture."""

    def run_model(model: onnx.ModelProto, picture: Input) -> tuple[np.ndarray, np.ndarray]:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(["anomaly_map", "score"], {"image": picture})

    return run_model


@dataclasses.dataclass(frozen=True)
class BuiltPlan:
    """A plan for SM 8.6 by TensorRT-RTX in a folder of its own, and the compiler's messages; copy what you change."""

    path: Path
    log: list[str]


BuildOnce = Callable[[str, Graph], BuiltPlan]


@pytest.fixture(scope="session")
def build_once(make_once) -> BuildOnce:
    """Builds a plan of a graph, once for all worker processes."""
    pytest.importorskip("tensorrt_rtx")

    def build(name: str, graph: Graph) -> BuiltPlan:
        def fill(folder: Path) -> None:
            messages: list[str] = []
            SM86.build(graph, folder / "plan" / "plate.plan", on_log=lambda _, message: messages.append(message))
            (folder / "log.txt").write_text("\0".join(messages))

        folder = make_once(name, fill)
        return BuiltPlan(folder / "plan" / "plate.plan", (folder / "log.txt").read_text().split("\0"))

    return build


@pytest.fixture(scope="session")
def float_plan(graph, build_once) -> BuiltPlan:
    return build_once("float_plan", graph)


@pytest.fixture(scope="session")
def half_plan(half, build_once) -> BuiltPlan:
    return build_once("half_plan", half)


BuildLog = Callable[[onnx.ModelProto, Any], list[str]]


@pytest.fixture(scope="session")
def build_log() -> BuildLog:
    """Builds a plan of a model and throws it away; gives the compiler's messages."""
    pytest.importorskip("tensorrt_rtx")
    product = find_product("tensorrt-rtx")

    def build(model: onnx.ModelProto, spec: Any) -> list[str]:
        messages: list[str] = []
        product.compile(
            model.SerializeToString(), spec=spec, targets=("sm86",), on_log=lambda _, message: messages.append(message)
        )
        return messages

    return build


@pytest.fixture(scope="session")
def plate_data(make_once) -> Path:
    """3 good training, 6 good and 4 defective test pictures, with masks, in MVTec AD's layout."""
    drawn = {"train": 3, "test_good": 6, "test_defective_per_kind": 1, "size": (120, 140), "seed": 3}
    return make_once("plate_data", lambda folder: write_dataset(folder, category="plate", **drawn)) / "plate"


@pytest.fixture
def engine(traced_engine, tmp_path) -> Path:
    """A copy of the exported graph with its sidecar, to be changed at will."""
    path = tmp_path / "plate.onnx"
    shutil.copy(traced_engine, path)
    shutil.copy(Sidecar.path_for(traced_engine), Sidecar.path_for(path))
    return path


def copied(engine: Path, folder: Path) -> Path:
    """An engine's folder copied into another one, to be changed at will."""
    for path in engine.parent.iterdir():
        shutil.copy(path, folder / path.name)
    return folder / engine.name


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a failed command."""
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


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
