"""What DeepStream's Gst-nvinfer is given: keys that it documents, and a graph that answers as before."""

from __future__ import annotations

import configparser
import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from export.__main__ import main
from export.graph.graph import Graph
from export.serving.deepstream import CONFIG, MODEL, PLAN, for_nvinfer, write_deepstream
from stlm_edge.errors import EngineError
from stlm_edge.plate.part import render_part
from stlm_edge.sidecar import Sidecar

from ..tiny import SIZE, write_engine

# Of the group [property] in the documentation of Gst-nvinfer and in gstnvinfer_property_parser.cpp of its version 9.
TEXT = str
KEYS = {
    "gie-unique-id": range(1, 1 << 31),
    "process-mode": range(1, 3),
    "onnx-file": TEXT,
    "model-engine-file": TEXT,
    "batch-size": range(1, 1025),
    "network-mode": range(4),
    "network-type": (0, 1, 2, 3, 100),
    "output-tensor-meta": range(2),
    "network-input-order": range(3),
    "model-color-format": range(3),
    "net-scale-factor": float,
    "maintain-aspect-ratio": range(2),
    "scaling-filter": range(6),
    "strongly-typed": range(2),
}


def properties(path: Path) -> dict[str, str]:
    """The keys of a configuration, each of them known and of its type."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(path)
    assert parser.sections() == ["property"]
    found = dict(parser["property"])
    for key, value in found.items():
        kind = KEYS[key]
        if kind is float:
            assert float(value) > 0
        elif kind is not TEXT:
            assert int(value) in kind
    return found


@pytest.fixture(scope="module")
def engine(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_engine(graph, tmp_path_factory.mktemp("engine") / "plate.onnx")


def test_configuration_says_what_the_graph_takes(engine: Path, tmp_path: Path) -> None:
    found = properties(write_deepstream(engine, tmp_path))
    assert found["onnx-file"] == MODEL
    assert found["model-engine-file"] == PLAN
    assert found["batch-size"] == "1"
    assert found["network-type"] == "100"  # none of its own kinds: raw tensors
    assert found["output-tensor-meta"] == "1"
    assert found["model-color-format"] == "1"  # BGR
    assert found["network-input-order"] == "0"  # NCHW
    assert float(found["net-scale-factor"]) == 1
    assert (tmp_path / MODEL).is_file()


def test_comments_say_the_threshold_and_what_has_not_been_tried(engine: Path, tmp_path: Path) -> None:
    text = write_deepstream(engine, tmp_path).read_text()
    threshold = Sidecar.read(engine).spec.require_threshold()
    assert f"score >= {threshold.value!r}" in text
    assert "NOT TRIED" in text
    assert "--minShapes" not in text


@pytest.mark.heavy
def test_several_pictures_at_once(batched: Graph, tmp_path: Path) -> None:
    path = write_deepstream(write_engine(batched, tmp_path / "plate.onnx"), tmp_path / "deepstream")
    assert properties(path)["batch-size"] == "4"
    text = path.read_text()
    assert f"--maxShapes=image:4x3x{SIZE[0]}x{SIZE[1]}" in text
    assert "anomaly_map, score and full_map" in text


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["graph", "batched"])
def test_gst_nvinfer_takes_the_shapes(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> None:
    """Its rules, of nvdsinfer_context_impl.cpp and nvdsinfer_func_utils.cpp, without `infer-dims`.

    The shape behind the batch is channels, height, width, and as many channels as the colours have; every output has
    elements left when its first dimension is taken off.
    """
    engine = write_engine(request.getfixturevalue(name), tmp_path / "plate.onnx")
    write_deepstream(engine, tmp_path)
    model = onnx.load(tmp_path / MODEL).graph
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim][1:]
        for value in (*model.input, *model.output)
    }
    assert shapes["image"] == [3, *SIZE]
    assert shapes["score"] == [1]
    assert all(shape and min(shape) > 0 for shape in shapes.values())


def test_planes_of_floats_get_the_answers_of_bytes(engine: Path, tmp_path: Path) -> None:
    """Gst-nvinfer's pixels are the bytes as floats: its factor is 1 and it subtracts nothing."""
    write_deepstream(engine, tmp_path)
    image = render_part(np.random.default_rng(0), size=SIZE, defect="scratch").image[None]
    planes = np.ascontiguousarray(image.transpose(0, 3, 1, 2), dtype=np.float32)
    wanted, found = (
        onnxruntime.InferenceSession(path).run(["anomaly_map", "score"], {"image": pixels})
        for path, pixels in ((engine, image), (tmp_path / MODEL, planes))
    )
    assert wanted[0].std() > 0.01
    np.testing.assert_array_equal(found[0], wanted[0])
    np.testing.assert_array_equal(found[1], wanted[1][:, None])


def test_graph_itself_is_left_alone(graph: Graph) -> None:
    before = graph.model.SerializeToString(deterministic=True)
    changed = for_nvinfer(graph).model
    assert graph.model.SerializeToString(deterministic=True) == before
    assert changed.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_tensorrt_reads_the_graph(engine: Path, tmp_path: Path) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    write_deepstream(engine, tmp_path)
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR)).parse((tmp_path / MODEL).read_bytes())
    assert network.get_input(0).dtype == trt.DataType.FLOAT
    assert tuple(network.get_input(0).shape) == (1, 3, *SIZE)


def test_category_cannot_break_out_of_its_comment(graph: Graph, tmp_path: Path) -> None:
    category = "a\n[property]\nbatch-size=9"
    spec = dataclasses.replace(graph.spec, category=category)
    hostile = write_engine(dataclasses.replace(graph, spec=spec, content=None), tmp_path / "plate.onnx")
    assert properties(write_deepstream(hostile, tmp_path / "deepstream"))["batch-size"] == "1"


def test_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="planes of floats and no bytes"):
        write_deepstream(tmp_path / "plate.plan", tmp_path / "deepstream")


def test_altered_engine_is_refused(graph: Graph, tmp_path: Path) -> None:
    engine = write_engine(graph, tmp_path / "plate.onnx")
    engine.write_bytes(engine.read_bytes() + b"\0")
    with pytest.raises(EngineError, match="another SHA-256"):
        write_deepstream(engine, tmp_path / "deepstream")
    assert not (tmp_path / "deepstream").exists()


def test_command_warns_that_nothing_has_been_tried(
    engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["deepstream", str(engine), "-o", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == str(tmp_path / CONFIG)
    assert "NOT TRIED" in printed.err


def test_unverified_engine_has_to_be_insisted_on(
    graph: Graph, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = write_engine(graph, tmp_path / "plate.onnx", verified=None)
    assert main(["deepstream", str(engine), "-o", str(tmp_path / "deepstream")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "--allow-unverified" in line
    assert not (tmp_path / "deepstream").exists()
    assert main(["deepstream", str(engine), "-o", str(tmp_path / "deepstream"), "--allow-unverified"]) == 0


@pytest.mark.parametrize(("name", "words"), [("nothing.onnx", "is not a file"), ("plate.txt", "give the .onnx file")])
def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, words: str) -> None:
    assert main(["deepstream", str(tmp_path / name), "-o", str(tmp_path / "deepstream")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
