"""From a checkpoint to an ONNX file that the runtime opens."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export.__main__ import main
from export.graph.graph import INPUT, OPSET, SPEC_KEY
from runtime.area import Area
from runtime.detector import Detector
from stlm_edge import __version__
from stlm_edge.imaging import resize_map, to_input
from stlm_edge.network.checkpoint import Checkpoint, load, save
from stlm_edge.network.encoder import ARCHITECTURES
from stlm_edge.network.inference import InferencePath, prepare
from stlm_edge.network.stlm import Stlm
from stlm_edge.network.weights import fingerprint
from stlm_edge.plate.part import render_part
from stlm_edge.sidecar import Sidecar

from .tiny import DESIGNS

SIZE = (64, 96)
GRID = (4, 6)


@pytest.fixture(scope="module")
def checkpoint(small_checkpoint) -> Path:
    return small_checkpoint


@pytest.fixture(scope="module")
def inspector(checkpoint) -> InferencePath:
    loaded = load(checkpoint)
    return InferencePath(loaded.network, loaded.spec).eval()


@pytest.fixture(scope="module")
def engine(traced_engine) -> Path:
    return traced_engine


@torch.no_grad()
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_runtime_gives_pytorchs_map_and_score(engine, inspector, backend):
    with Detector.open(engine, backend=backend) as detector:
        for index in range(3):
            frame = render_part(np.random.default_rng(index), size=(200, 180), defect="scratch").image
            coarse = inspector.network(prepare(torch.from_numpy(to_input(frame, spec=inspector.spec)), inspector.spec))
            _, wanted_score = inspector.finish(coarse)
            found = detector.inspect(frame)
            assert found.score == pytest.approx(wanted_score.item(), abs=1e-4)
            assert found.anomaly_map.shape == (200, 180)
            assert np.abs(found.anomaly_map - resize_map(coarse[0, 0].numpy(), (200, 180))).max() < 1e-4


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_runtime_scores_an_area_of_all_pixels_as_the_graph_does(engine, backend):
    area = Area(np.ones((200, 180), np.uint8), "area.json")
    with Detector.open(engine, backend=backend) as plain, Detector.open(engine, backend=backend, area=area) as detector:
        for index in range(3):
            frame = render_part(np.random.default_rng(index), size=(200, 180), defect="scratch").image
            assert detector.inspect(frame).score == pytest.approx(plain.inspect(frame).score, abs=1e-5)


def test_graph_says_what_it_is_and_nothing_about_this_machine(engine, inspector):
    model = onnx.load(engine)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties.pop(SPEC_KEY) == dataclasses.replace(inspector.spec, map_size=GRID).to_json()
    assert properties == {
        "stlm_edge.toolkit_version": __version__,
        "stlm_edge.category": "plate",
        "stlm_edge.architecture": "stlm-tiny",
        "stlm_edge.precision_name": "fp32",
        "stlm_edge.channel_order": "BGR",
        "stlm_edge.input_size": "64x96",
        "stlm_edge.map_size": "4x6",
        "stlm_edge.max_batch": "1",
        "stlm_edge.highest_score": "1.0",
        "stlm_edge.threshold": repr(inspector.spec.threshold.value),
        "stlm_edge.weights_sha256": inspector.spec.weights_sha256,
    }
    assert (model.producer_name, model.producer_version) == ("stlm-edge", __version__)
    assert "image: 1 x 64 x 96 x 3 uint8, BGR" in model.doc_string
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [OPSET]
    assert not model.functions
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")  # numbers, in which any letters may stand
    text = str(model).lower()
    assert ".py" not in text
    assert "stack_trace" not in text


def test_sidecar_has_spec_and_record(engine, inspector):
    sidecar = Sidecar.read(engine)
    assert sidecar.spec == dataclasses.replace(inspector.spec, map_size=GRID)
    assert sidecar.engine.precision == "fp32"
    assert sidecar.engine.gate is not None
    assert sidecar.engine.gate.verified
    assert sidecar.engine.gate.drifts[0].images == 6
    assert json.loads(Sidecar.path_for(engine).read_text())["spec"]["category"] == "plate"


@pytest.mark.heavy
def test_pictures_of_the_user_are_compared_on(checkpoint, tmp_path, capsys):
    from stlm_edge.imaging import write_image

    for index in range(3):
        write_image(tmp_path / f"{index}.png", render_part(np.random.default_rng(index), size=SIZE, defect=None).image)
    output = tmp_path / "out" / "plate.onnx"
    assert main(["onnx", str(checkpoint), "-o", str(output), "--data", str(tmp_path)]) == 0
    assert "on 3 pictures" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing.safetensors", "-o", "a.onnx"], "is no file"),
        (["nothing.plan", "-o", "a.onnx"], "expected a checkpoint (.safetensors) or a graph (.onnx)"),
        ([__file__, "-o", "a.onnx"], "expected a checkpoint (.safetensors) or a graph (.onnx)"),
        (["{checkpoint}", "-o", "a.plan"], "expected .onnx"),
        (["{checkpoint}", "-o", "a.onnx", "--data", "nowhere"], "nowhere"),
        (["{checkpoint}", "-o", "/dev/null/a.onnx"], "cannot write"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(checkpoint, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main(["onnx", *(argument.format(checkpoint=checkpoint) for argument in arguments)]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert words in errors[0]
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_without_threshold_is_refused(checkpoint, tmp_path, capsys):
    loaded = load(checkpoint)
    path = tmp_path / "unfinished.safetensors"
    save(path, dataclasses.replace(loaded, spec=dataclasses.replace(loaded.spec, threshold=None)))
    assert main(["onnx", str(path), "-o", str(tmp_path / "a.onnx")]) == 1
    assert "no threshold yet" in capsys.readouterr().err
    assert not (tmp_path / "a.onnx").exists()


def test_input_has_the_promised_name_and_type(engine):
    (value,) = onnx.load(engine).graph.input
    assert value.name == INPUT
    assert value.type.tensor_type.elem_type == onnx.TensorProto.UINT8


@pytest.mark.slow
@pytest.mark.parametrize("design", DESIGNS[1:3], ids=lambda design: design.differences.strip(", "))
def test_ablation_can_be_exported(design, tmp_path, inspector):
    """What a graph computes of each ablation is compared in `graph/test_deployment.py`."""
    torch.manual_seed(0)
    network = Stlm(ARCHITECTURES["stlm-tiny"], design, image_size=SIZE).train()
    with torch.no_grad():
        network(torch.randn(4, 3, *SIZE))
    spec = dataclasses.replace(inspector.spec, weights_sha256=fingerprint(network.state_dict()))
    save(tmp_path / "model.safetensors", Checkpoint(network.eval(), spec, {}))
    assert main(["onnx", str(tmp_path / "model.safetensors"), "-o", str(tmp_path / "plate.onnx")]) == 0
    with Detector.open(tmp_path / "plate.onnx", backend="onnxruntime") as detector:
        frame = render_part(np.random.default_rng(0), size=(200, 180), defect="scratch").image
        assert detector.inspect(frame).anomaly_map.std() > 0
