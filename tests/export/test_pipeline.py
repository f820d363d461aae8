"""From a checkpoint to a verified plan in one command, and again from the graph that lies beside it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from export.__main__ import main
from export.gate.limits import LIMITS
from export.graph.graph import GraphOptions, load_graph, read_graph
from export.publish import unverified_name
from export.tensorrt.kernels import read_kernels
from runtime.backends import open_engine
from runtime.detector import Detector
from stlm_edge.errors import ConfigError, EngineError
from stlm_edge.files import sha256
from stlm_edge.sidecar import Sidecar
from stlm_edge.tensorrt import kept_graph

from .conftest import copied, error_line, files
from .tiny import PLATE

pytest.importorskip("tensorrt_rtx")

pytestmark = pytest.mark.heavy

TARGET = ("--target", "sm86")


@pytest.fixture(scope="module")
def data(plate) -> Path:
    """A part in MVTec AD's layout: 6 good training, 2 good and 4 defective test pictures."""
    return plate / "plate"


@pytest.fixture(scope="module")
def graph(traced_engine) -> Path:
    """Of the demo's checkpoint, in float32."""
    return traced_engine


@pytest.fixture(scope="module")
def plan(graph, small_checkpoint, data, make_once) -> Path:
    """Of that graph, in FP16, judged by the checkpoint."""

    def fill(folder: Path) -> None:
        arguments = ["--precision", "fp16", *TARGET, "--data", str(data), "--reference", str(small_checkpoint)]
        assert main(["engine", str(graph), "-o", str(folder / "plate.plan"), *arguments]) == 0

    return make_once("pipeline_plan", fill) / "plate.plan"


def test_network_becomes_a_plan_with_all_that_belongs_to_it(plan):
    names = {path.name for path in plan.parent.iterdir()}
    assert names == {"plate.plan", "plate.plan.json", "plate.plan.onnx", "plate.plan.kernels.json"}
    sidecar = Sidecar.read(plan)
    record, gate = sidecar.engine, sidecar.engine.gate
    assert (record.product, record.device, record.precision) == ("tensorrt-rtx", "sm86", "fp16")
    assert (record.engine_sha256, record.onnx_sha256) == (sha256(plan), sha256(kept_graph(plan)))
    assert record.precision_by_class["MLP"] == "fp16+fp32"
    assert record.calibration is not None
    assert record.calibration.images == 6
    assert gate is not None
    assert gate.verified
    assert not gate.executed
    assert gate.reference == "pytorch"
    assert [drift.backend for drift in gate.drifts][-1] == "rounded to float16"
    assert all(drift.images == 6 and drift.image_auroc_drift is not None for drift in gate.drifts)
    assert read_kernels(plan).kernels


def test_plan_is_built_again_without_torch_and_modelopt(plan, tmp_path):
    """As a Jetson does, from the graph that lies beside the plan; the verdict on the graph comes along."""
    path = copied(plan, tmp_path)
    before = Sidecar.read(path).engine
    missing = "torch", "timm", "segment_anything", "modelopt", "onnxruntime", "openvino", "nncf", "matplotlib"
    code = (
        f"import sys\nfor name in {missing!r}: sys.modules[name] = None\n"
        "from export.__main__ import main\n"
        f"sys.exit(main(['engine', {str(kept_graph(path))!r}, '-o', {str(path)!r}, '--target', 'sm89']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = Sidecar.read(path).engine
    assert record.device == "sm89"
    assert record.gate == before.gate
    assert (record.onnx_sha256, record.precision_by_class) == (before.onnx_sha256, before.precision_by_class)


def test_graph_of_which_nothing_is_known_makes_a_plan_that_is_not_verified(plan, tmp_path, capsys):
    graph, path = tmp_path / "stray.onnx", tmp_path / "stray.plan"
    graph.write_bytes(kept_graph(plan).read_bytes())
    assert main(["engine", str(graph), "-o", str(path), *TARGET]) == 0
    assert Sidecar.read(path).engine.gate is None
    assert "NOT COMPARED" in capsys.readouterr().err


def test_refused_engine_stands_beside_its_place_and_the_old_one_stays(graph, data, plan, tmp_path, monkeypatch, capsys):
    path = copied(plan, tmp_path)
    before = files(tmp_path)
    strict = dataclasses.replace(LIMITS["fp16"], max_map_error=1e-9)
    monkeypatch.setitem(LIMITS, "fp16", strict)
    arguments = ["--precision", "fp16", *TARGET, "--data", str(data)]
    assert main(["engine", str(graph), "-o", str(path), *arguments]) == 1
    printed = capsys.readouterr()
    (error,) = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert "is NOT VERIFIED" in error
    assert "plate.unverified.plan" in error
    assert "rounded to float16" in printed.out, "what was found is told where it is refused too"
    after = files(tmp_path)
    assert {name: after[name] for name in before} == before
    refused = Sidecar.read(unverified_name(path)).engine
    assert refused.gate is not None
    assert not refused.gate.verified


def test_what_cannot_be_judged_leaves_nothing(traced_engine, plan, tmp_path, capsys):
    path = copied(plan, tmp_path)
    before = files(tmp_path)
    broken = tmp_path.parent / f"{tmp_path.name}-broken"
    broken.mkdir()
    (broken / "a.png").write_bytes(b"no picture")
    assert (
        main(["engine", str(traced_engine), "-o", str(path), "--precision", "fp16", *TARGET, "--data", str(broken)])
        == 1
    )
    assert "a.png" in capsys.readouterr().err
    assert files(tmp_path) == before


def test_plan_does_not_run_without_a_gpu_and_says_what_does(plan, monkeypatch):
    monkeypatch.setattr("runtime.backends.plan.find_gpu", lambda: None)
    with pytest.raises(EngineError, match=r"no NVIDIA GPU; run the plan on a machine with one, or an \.onnx file"):
        open_engine(plan)


def test_recalibrated_threshold_is_not_lost_without_a_word(plan, tmp_path, capsys):
    path = copied(plan, tmp_path)
    sidecar = Sidecar.read(path)
    threshold = dataclasses.replace(sidecar.spec.require_threshold(), value=0.123, previous=0.5)
    dataclasses.replace(sidecar, spec=dataclasses.replace(sidecar.spec, threshold=threshold)).write(path)
    assert main(["engine", str(kept_graph(path)), "-o", str(path), *TARGET]) == 0
    assert "had the threshold 0.123" in capsys.readouterr().err


def test_graph_in_half_precision_runs_on_processors_and_becomes_a_plan(graph, data, tmp_path):
    half = tmp_path / "half.onnx"
    assert main(["onnx", str(graph), "-o", str(half), "--precision", "fp16", "--data", str(data)]) == 0
    written = read_graph(half)
    assert written.precision == "fp16"
    assert {kept.layer_class for kept in written.record.kept} >= {"comparison", "score", "pixels"}
    with Detector.open(half) as detector:
        assert detector.spec.category == "plate"
    assert main(["engine", str(half), "-o", str(tmp_path / "half.plan"), *TARGET]) == 0
    gate = Sidecar.read(tmp_path / "half.plan").engine.gate
    assert gate is not None
    assert gate.verified


@pytest.mark.slow
def test_quantises_as_much_as_the_gate_accepts(graph, data, tmp_path, capsys):
    path = tmp_path / "int8.plan"
    assert main(["engine", str(graph), "-o", str(path), "--precision", "int8", *TARGET, "--data", str(data)]) == 0
    record = Sidecar.read(path).engine
    assert record.precision == "int8"
    assert any("int8" in precision for precision in record.precision_by_class.values())
    assert record.gate is not None
    assert record.gate.verified
    printed = capsys.readouterr()
    assert "what INT8 does to each layer class" in printed.err


@pytest.mark.slow
def test_only_named_classes_are_quantised(graph, data, tmp_path):
    path = tmp_path / "decoder.onnx"
    arguments = ["--precision", "int8", "--int8-classes", "decoder", "--data", str(data)]
    assert main(["onnx", str(graph), "-o", str(path), *arguments]) == 0
    by_class = Sidecar.read(path).engine.precision_by_class
    assert {name for name, precision in by_class.items() if "int8" in precision} == {"decoder"}


@pytest.mark.slow
def test_checkpoint_becomes_a_plan_that_resizes_frames(small_checkpoint, tmp_path, capsys):
    path = tmp_path / "frames.plan"
    arguments = ["--frame-size", "512x384", *TARGET]
    assert main(["engine", str(small_checkpoint), "-o", str(path), *arguments]) == 0
    assert "resize in the graph" in capsys.readouterr().out
    assert Sidecar.read(path).spec.frame_size == (512, 384)


@pytest.mark.slow
@pytest.mark.parametrize(
    "form",
    [["--max-batch", "3", "--full-map", "--local-conv", "sums"], ["--simplify"]],
    ids=" ".join,
)
def test_other_forms_of_the_graph(small_checkpoint, data, tmp_path, form):
    if "--simplify" in form:
        pytest.importorskip("onnxsim")
    path = tmp_path / "plate.plan"
    arguments = ["--precision", "fp16", *TARGET, "--data", str(data)]
    assert main(["engine", str(small_checkpoint), "-o", str(path), *form, *arguments]) == 0
    spec = Sidecar.read(path).spec
    assert (spec.max_batch, spec.full_map) == ((3, True) if "--max-batch" in form else (1, False))
    names = [node.name for node in read_graph(kept_graph(path)).model.graph.node]
    assert any(name.endswith(".local_conv|mul") for name in names) == ("sums" in form)
    assert any("|joined_" in name for name in names) == ("--simplify" in form)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{source}", "-o", "a.onnx"], "expected .plan"),
        (["{source}", "-o", "a.plan", "--data", "nowhere"], "nowhere"),
        (["{graph}", "-o", "a.plan", "--precision", "int8"], "needs good pictures"),
        (["{graph}", "-o", "a.plan", "--target", "sm1"], "sm1"),
        (["{graph}", "-o", "a.plan", "--timing-cache", "a.cache"], "timing cache"),
        (["{source}", "-o", "a.plan", "--frame-size", "513x512"], "513 x 512"),
        (["{source}", "-o", "a.plan", "--max-batch", "2", "--streams", "stacked"], "leave one of the two out"),
        (["{half}", "-o", "a.plan", "--precision", "int8"], "is in fp16"),
        (["{half}", "-o", "a.plan", "--max-batch", "2"], "its form is settled"),
        (["{graph}", "-o", "/dev/null/a.plan"], "cannot write"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    graph, small_checkpoint, plan, tmp_path, monkeypatch, capsys, arguments, words
):
    monkeypatch.chdir(tmp_path)
    filled = [argument.format(source=small_checkpoint, graph=graph, half=kept_graph(plan)) for argument in arguments]
    assert main(["engine", *filled]) == 1
    assert words in error_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_graph_is_traced_in_the_form_that_was_asked_for(traced_engine):
    with pytest.raises(ConfigError, match="its form is settled"):
        load_graph(traced_engine, GraphOptions(max_batch=2))
    assert load_graph(traced_engine, GraphOptions()).content == traced_engine.read_bytes()


def test_folder_in_the_engines_place_is_refused(traced_engine, tmp_path, capsys):
    (tmp_path / "a.plan").mkdir()
    assert main(["engine", str(traced_engine), "-o", str(tmp_path / "a.plan"), *TARGET]) == 1
    assert "is a folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.plan"]


def test_unknown_layer_class_is_wrong_usage(capsys):
    assert main(["engine", str(PLATE), "-o", "a.plan", "--precision", "int8", "--int8-classes", "head"]) == 2
    assert "no layer class 'head'" in capsys.readouterr().err


def test_edited_sidecar_is_refused(plan, tmp_path, capsys):
    path = copied(plan, tmp_path)
    content = json.loads(Sidecar.path_for(path).read_text())
    content["spec"]["threshold"]["value"] = 0.01
    Sidecar.path_for(path).write_text(json.dumps(content))
    assert main(["verify", str(path), "--reference", "a.onnx", "--data", "."]) == 1
    assert "edited or damaged" in capsys.readouterr().err
