"""A model repository of Triton, checked against Triton's own published schema."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, text_format

from export.__main__ import main
from export.graph.graph import Graph
from export.serving.triton import TritonOptions, config, write_repository
from stlm_edge.errors import ConfigError, EngineError
from stlm_edge.sidecar import Sidecar
from stlm_edge.spec import ModelSpec

from ..tiny import GRID, SIZE, write_engine

SCHEMA = Path(__file__).parent / "schema" / "triton_model_config.txtpb"


@pytest.fixture(scope="module")
def parse():
    """Parses a configuration as Triton does; what is not in its schema is an error."""
    files = text_format.Parse(SCHEMA.read_text(), descriptor_pb2.FileDescriptorSet())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))

    def parse(text: str) -> dict[str, Any]:
        message = text_format.Parse(text, kind(), descriptor_pool=pool)
        return json_format.MessageToDict(message, preserving_proto_field_name=True)

    return parse


@pytest.fixture(scope="module")
def fixed(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_engine(graph, tmp_path_factory.mktemp("fixed") / "plate.onnx")


@pytest.fixture(scope="module")
def several(batched: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For several pictures at once."""
    return write_engine(batched, tmp_path_factory.mktemp("several") / "plate.onnx")


def dims(*sizes: int) -> list[str]:
    """As the JSON of protocol buffers has them."""
    return list(map(str, sizes))


@pytest.mark.parametrize(
    "text", ['nme: "a"', "instance_group [ { kind: KIND_TPU } ]", 'input [ { dims: ["a"] } ]', "max_batch_size: 1.5"]
)
def test_schema_refuses_what_it_does_not_know(parse, text: str) -> None:
    with pytest.raises(text_format.ParseError):
        parse(text)


def test_graph_of_fixed_shapes_says_all_of_them(parse, fixed: Path, tmp_path: Path) -> None:
    folder = write_repository(fixed, tmp_path)
    found = parse((folder / "config.pbtxt").read_text())
    parameter = found.pop("parameters")["stlm_edge.spec"]["string_value"]
    assert found == {
        "name": "stlm",
        "backend": "onnxruntime",
        "default_model_filename": "model.onnx",
        "input": [{"name": "image", "data_type": "TYPE_UINT8", "dims": dims(1, *SIZE, 3)}],
        "output": [
            {"name": "anomaly_map", "data_type": "TYPE_FP32", "dims": dims(1, *GRID)},
            {"name": "score", "data_type": "TYPE_FP32", "dims": dims(1)},
        ],
        "instance_group": [{"count": 1}],
    }
    assert ModelSpec.from_json(parameter) == Sidecar.read(fixed).spec


@pytest.mark.heavy
def test_graph_of_several_pictures_leaves_the_batch_out(parse, several: Path, tmp_path: Path) -> None:
    options = TritonOptions(name="tile-7", instances=2, device="gpu", max_queue_delay_us=500)
    folder = write_repository(several, tmp_path, options=options)
    assert folder == tmp_path / "tile-7"
    found = parse((folder / "config.pbtxt").read_text())
    del found["parameters"]
    assert found == {
        "name": "tile-7",
        "backend": "onnxruntime",
        "default_model_filename": "model.onnx",
        "max_batch_size": 4,
        "input": [{"name": "image", "data_type": "TYPE_UINT8", "dims": dims(*SIZE, 3)}],
        "output": [
            {"name": "anomaly_map", "data_type": "TYPE_FP32", "dims": dims(*GRID)},
            # Triton wants a dimension where only the batch is.
            {"name": "score", "data_type": "TYPE_FP32", "dims": dims(1), "reshape": {}},
            {"name": "full_map", "data_type": "TYPE_FP32", "dims": dims(*SIZE)},
        ],
        "instance_group": [{"count": 2, "kind": "KIND_GPU"}],
        "dynamic_batching": {"max_queue_delay_microseconds": "500"},
    }


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["fixed", "several"])
def test_configuration_has_the_graphs_own_inputs_and_outputs(
    parse, request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    engine = request.getfixturevalue(name)
    found = parse((write_repository(engine, tmp_path) / "config.pbtxt").read_text())
    model = onnx.load(tmp_path / "stlm" / "1" / "model.onnx")
    batch = found.get("max_batch_size", 0) > 0
    for side, values in (("input", model.graph.input), ("output", model.graph.output)):
        ports = {}
        for value in values:
            shape = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
            ports[value.name] = shape[1:] if batch else shape
        told = {entry["name"]: [] if "reshape" in entry else list(map(int, entry["dims"])) for entry in found[side]}
        assert told == ports


def test_frames_that_the_graph_resizes(parse, fixed: Path) -> None:
    sidecar = Sidecar.read(fixed)
    sidecar = dataclasses.replace(sidecar, spec=dataclasses.replace(sidecar.spec, frame_size=(1080, 1920)))
    found = parse(config(sidecar, suffix=".onnx", options=TritonOptions()))
    assert found["input"][0]["dims"] == dims(1, 1080, 1920, 3)


def test_plan_is_served_by_tensorrt_on_the_gpu(parse, fixed: Path) -> None:
    found = parse(config(Sidecar.read(fixed), suffix=".plan", options=TritonOptions()))
    assert found["backend"] == "tensorrt"
    assert found["default_model_filename"] == "model.plan"
    assert found["instance_group"] == [{"count": 1, "kind": "KIND_GPU"}]


def test_text_in_the_specification_cannot_break_out(parse, fixed: Path) -> None:
    sidecar = Sidecar.read(fixed)
    category = 'é "\\\n\t} max_batch_size: 8 {'
    sidecar = dataclasses.replace(sidecar, spec=dataclasses.replace(sidecar.spec, category=category))
    found = parse(config(sidecar, suffix=".onnx", options=TritonOptions()))
    assert "max_batch_size" not in found
    assert json.loads(found["parameters"]["stlm_edge.spec"]["string_value"])["category"] == category


def test_engine_is_copied_as_it_is_and_an_older_one_replaced(fixed: Path, several: Path, tmp_path: Path) -> None:
    write_repository(several, tmp_path)
    folder = write_repository(fixed, tmp_path)
    assert (folder / "1" / "model.onnx").read_bytes() == fixed.read_bytes()
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["config.pbtxt", "model.onnx"]


@pytest.mark.parametrize(("verified", "words"), [(None, "has not been compared"), (False, "drifts too far")])
def test_unverified_engine_has_to_be_insisted_on(
    graph: Graph, tmp_path: Path, capsys: pytest.CaptureFixture[str], verified: bool | None, words: str
) -> None:
    engine = write_engine(graph, tmp_path / "plate.onnx", verified=verified)
    assert main(["triton", str(engine), "-o", str(tmp_path / "repository")]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "repository").exists()
    assert main(["triton", str(engine), "-o", str(tmp_path / "repository"), "--allow-unverified"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "repository" / "stlm")


def test_plan_of_tensorrt_rtx_is_refused(graph: Graph, tmp_path: Path) -> None:
    engine = write_engine(graph, tmp_path / "plate.onnx", product="tensorrt-rtx")
    plan = tmp_path / "plate.plan"
    engine.rename(plan)
    Sidecar.path_for(engine).rename(Sidecar.path_for(plan))
    with pytest.raises(EngineError, match="TensorRT-RTX, whose plans Triton does not load"):
        write_repository(plan, tmp_path / "repository")


def test_altered_engine_is_refused_and_nothing_is_left(graph: Graph, tmp_path: Path) -> None:
    engine = write_engine(graph, tmp_path / "plate.onnx")
    engine.write_bytes(engine.read_bytes() + b"\0")
    with pytest.raises(EngineError, match="another SHA-256"):
        write_repository(engine, tmp_path / "repository")
    assert [path for path in (tmp_path / "repository").rglob("*") if path.is_file()] == []


def test_engine_of_openvino_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"expected \.plan or \.onnx"):
        write_repository(tmp_path / "plate.xml", tmp_path / "repository")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--name", "a/b"], "is no name for a model"),
        (["--max-queue-delay-us", "5"], "leave --max-queue-delay-us out"),
        (["-o", "/dev/null/repository"], "cannot write"),
    ],
)
def test_bad_input_is_one_line(
    fixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["triton", str(fixed), "-o", str(tmp_path / "repository"), *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert list(tmp_path.iterdir()) == []


def test_plan_does_not_run_on_a_processor(fixed: Path) -> None:
    with pytest.raises(ConfigError, match="runs on a GPU only"):
        config(Sidecar.read(fixed), suffix=".plan", options=TritonOptions(device="cpu"))
