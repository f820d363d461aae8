"""From an ONNX graph to a plan: real builds by TensorRT-RTX, which needs no GPU for that."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
import tensorrt_rtx
from onnx import TensorProto, helper, numpy_helper

import export.tensorrt.build
from export.__main__ import main
from export.graph.graph import OPSET, PRECISION_KEY, SPEC_KEY, PrecisionRecord, read_graph, set_metadata
from export.pipeline import OnnxBuilder
from export.tensorrt.build import PlanBuilder
from export.tensorrt.product import find_product
from runtime.backends import open_engine
from stlm_edge.command import main as stlm
from stlm_edge.errors import ConfigError, EngineError
from stlm_edge.files import sha256
from stlm_edge.sidecar import BuildMachine, Sidecar
from stlm_edge.spec import ModelSpec, Threshold
from stlm_edge.tensorrt import Gpu, kept_graph, process_logger, rebuild_command

from ...fake_tensorrt import CACHE, fake_tensorrt
from ..conftest import SM86, copied, error_line, files

SIZE = (64, 96)
pytestmark = pytest.mark.heavy

SPEC = ModelSpec(
    category="plate",
    architecture="stlm-tiny",
    input_size=SIZE,
    map_size=SIZE,
    weights_sha256="0" * 64,
    threshold=Threshold(value=0.5, method="quantile", images=9, false_alarm_rate=0.1),
)


@pytest.fixture(scope="module")
def source(traced_engine) -> Path:
    """A graph on disk, with the sidecar of its export."""
    return traced_engine


def write_brightness_graph(path: Path, *, max_batch: int) -> Path:
    """A graph of two layers whose map is the mean of the channels, for several pictures at once."""
    inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", *SIZE, 3])]
    outputs = [
        helper.make_tensor_value_info("anomaly_map", TensorProto.FLOAT, ["batch", *SIZE]),
        helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch"]),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], "head|cast", to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "channels"], ["anomaly_map"], "head|mean", keepdims=0),
        helper.make_node("ReduceMax", ["anomaly_map", "pixels"], ["score"], "head|max", keepdims=0),
    ]
    constants = [
        numpy_helper.from_array(np.array(axes), name) for name, axes in (("channels", [3]), ("pixels", [1, 2]))
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "brightness", inputs, outputs, constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=10,
    )
    set_metadata(model, SPEC_KEY, dataclasses.replace(SPEC, max_batch=max_batch).to_json())
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def plan(float_plan) -> Path:
    return float_plan.path


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The system refuses to write more than `size` bytes into one file, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_plan_is_raw_and_its_sidecar_and_graph_lie_beside_it(plan, source):
    suffixes = ["", ".json", ".kernels.json", ".onnx"]
    assert sorted(path.name for path in plan.parent.iterdir()) == [f"plate.plan{suffix}" for suffix in suffixes]
    assert plan.read_bytes()[1:4] == b"trt", "TensorRT's own header comes first"
    assert kept_graph(plan).read_bytes() == source.read_bytes()
    record = Sidecar.read(plan).engine
    assert (record.product, record.device, record.precision, record.gate) == ("tensorrt-rtx", "sm86", "fp32", None)
    assert (record.engine_sha256, record.onnx_sha256) == (sha256(plan), sha256(source))
    assert Sidecar.read(plan).spec.category == "plate"


def test_plan_is_for_its_target_in_full_float32(plan):
    """The options that TensorRT-RTX compiles by stand in the plan as text."""
    text = plan.read_bytes()
    assert b"sm86" in text
    assert b"tf32=0" in text
    assert b"tf32=1" not in text


def test_one_plan_for_several_targets(source, tmp_path, capsys):
    output = tmp_path / "plate.plan"
    assert main(["engine", str(source), "-o", str(output), "--target", "SM86, sm89,sm86"]) == 0
    assert "fp32 for sm86,sm89, TensorRT-RTX" in capsys.readouterr().out
    assert Sidecar.read(output).engine.device == "sm86,sm89"


def test_rebuild_command_rebuilds_from_what_lies_beside_the_plan(plan, tmp_path, monkeypatch):
    (tmp_path / "plate.plan.onnx").write_bytes(kept_graph(plan).read_bytes())
    monkeypatch.chdir(tmp_path)
    command = rebuild_command(Path("plate.plan"), product="tensorrt-rtx", targets=["sm89"])
    assert command == "stlm export plate.plan.onnx -o plate.plan --product tensorrt-rtx --target sm89"
    assert stlm(command.split()[1:]) == 0
    again, before = Sidecar.read(tmp_path / "plate.plan").engine, Sidecar.read(plan).engine
    assert again.device == "sm89"
    assert again.onnx_sha256 == before.onnx_sha256 == sha256(tmp_path / "plate.plan.onnx")


def test_without_a_target_tensorrt_rtx_builds_a_portable_plan_with_a_dynamic_batch(tmp_path):
    messages: list[tuple[str, str]] = []
    PlanBuilder().build(
        read_graph(write_brightness_graph(tmp_path / "batched.onnx", max_batch=4)),
        tmp_path / "plate.plan",
        on_log=lambda severity, text: messages.append((severity, text)),
    )
    sidecar = Sidecar.read(tmp_path / "plate.plan")
    assert (sidecar.engine.device, sidecar.spec.max_batch) == ("sm80+", 4)
    kernels = [text for severity, text in messages if severity == "VERBOSE" and "LayerType: kgen" in text]
    assert kernels, "the plan report lives of the messages at this verbosity"
    assert any("ONNX Layer: " in text for text in kernels)


def test_failure_that_is_remembered_does_not_disturb_the_next_build(tmp_path):
    """TensorRT hangs when the garbage collector frees an object of it while it logs, so none may be left behind."""
    graph = write_brightness_graph(tmp_path / "plate.onnx", max_batch=1).read_bytes()
    product, heard = find_product("tensorrt-rtx"), []
    spec = dataclasses.replace(SPEC, max_batch=2)
    with pytest.raises(EngineError, match="cannot read the graph") as remembered:
        product.compile(b"garbage", spec=spec, on_log=lambda severity, text: heard.append(text))
    frames, trace = [], remembered.tb
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    kept = [type(value).__name__ for frame in frames for value in frame.f_locals.values()]
    assert {"Builder", "INetworkDefinition", "OnnxParser", "IBuilderConfig"} & set(kept) == set()
    heard.clear()
    # As a runtime does, or an engine that was verified and is still open.
    alive = tensorrt_rtx.Builder(process_logger(tensorrt_rtx, [], None))
    product.compile(graph, spec=spec, on_log=lambda severity, text: heard.append(text))
    assert any("Engine generation completed" in text for text in heard)
    assert [text for text in heard if "logger" in text] == [], "TensorRT takes no second logger beside a living one"
    del alive


@pytest.mark.slow
def test_rebuilding_needs_no_more_than_running_plans_has_installed(source, tmp_path):
    """The command that a refused plan names, where only the extra of its TensorRT is installed."""
    copied = shutil.copy(source, kept_graph(tmp_path / "plate.plan"))
    command = rebuild_command(Path("plate.plan"), product="tensorrt-rtx", targets=["sm86"])
    assert copied.name == command.split()[2]
    code = (
        "import sys\n"
        "for name in ('torch', 'timm', 'modelopt', 'segment_anything', 'onnxscript', 'onnxruntime', 'openvino',\n"
        "             'tqdm', 'safetensors', 'yaml', 'matplotlib', 'scipy', 'PIL', 'huggingface_hub'):\n"
        "    sys.modules[name] = None\n"
        "from stlm_edge.command import main\n"
        f"sys.exit(main({command.split()[1:]!r}))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0
    assert (tmp_path / "plate.plan").exists()


def test_workspace_that_is_too_small_says_so_and_leaves_nothing(source, tmp_path, capsys):
    output = tmp_path / "plate.plan"
    assert main(["engine", str(source), "-o", str(output), "--target", "sm86", "--workspace", "1"]) == 1
    line = error_line(capsys)
    assert "workspace limit" in line
    assert "give more than --workspace 1" in line
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plate.engine"], "expected .plan"),
        (["plate.plan", "--target", "sm87"], "found --target sm87, TensorRT-RTX"),
        (["plate.plan", "--target", "sm86,rtx3090"], "builds for sm75, sm80, sm86, sm89, sm120, sm121"),
        (["plate.plan", "--product", "tensorrt"], "found no TensorRT, expected one to build a plan"),
        (["plate.plan", "--timing-cache", "timings"], "has no timing cache; found --timing-cache timings"),
        (["/dev/null/plate.plan"], "cannot write"),
    ],
)
def test_settings_that_cannot_be_used_are_one_line_and_leave_nothing(
    source, tmp_path, monkeypatch, capsys, arguments, words
):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.chdir(tmp_path)
    assert main(["engine", str(source), "-o", *arguments]) == 1
    assert words in error_line(capsys)
    assert files(tmp_path) == {}


def altered(model: onnx.ModelProto, case: str) -> bytes:
    if case == "no spec":
        kept = [entry for entry in model.metadata_props if entry.key != SPEC_KEY]
        del model.metadata_props[:]
        model.metadata_props.extend(kept)
    if case == "other opset":
        model.opset_import[0].version = 21
    if case == "damaged precision":
        set_metadata(model, PRECISION_KEY, '{"layers": {}}')
    if case == "unknown operation":
        model.opset_import.append(onnx.helper.make_opsetid("elsewhere", 1))
        model.graph.node[3].op_type, model.graph.node[3].domain = "Sharpen", "elsewhere"
    whole = model.SerializeToString()
    return whole[: len(whole) // 2] if case == "truncated" else whole


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("truncated", "is truncated or not an ONNX file"),
        ("no spec", "has no stlm_edge.spec in its metadata"),
        ("other opset", "has opset 21, expected 20"),
        ("damaged precision", "stlm_edge.precision cannot be read"),
        ("unknown operation", "cannot read the graph"),
    ],
)
def test_graph_that_cannot_be_used_is_one_line_and_leaves_nothing(source, tmp_path, capsys, case, words):
    path, folder = tmp_path / "altered.onnx", tmp_path / "out"
    path.write_bytes(altered(onnx.load(source), case))
    folder.mkdir()
    assert main(["engine", str(path), "-o", str(folder / "plate.plan"), "--target", "sm86"]) == 1
    line = error_line(capsys)
    assert words in line
    assert "altered.onnx" in line or case == "unknown operation", "TensorRT names the node instead"
    assert files(folder) == {}


def test_score_of_more_pixels_than_tensorrt_takes_is_refused_before_the_build(tmp_path, capsys, caplog):
    graph = read_graph(write_brightness_graph(tmp_path / "plate.onnx", max_batch=1))
    most, many = (
        dataclasses.replace(graph, spec=dataclasses.replace(graph.spec, top_k=top_k), content=None)
        for top_k in (3840, 3841)
    )
    assert PlanBuilder().precision_of(most) == "fp32"
    OnnxBuilder().build(most, tmp_path / "most.onnx")
    assert "NO TENSORRT" not in caplog.text
    OnnxBuilder().build(many, tmp_path / "many.onnx")
    assert "NO TENSORRT takes many.onnx: its score is the mean of the 3841 highest pixels (top_k)" in caplog.text
    assert main(["engine", str(tmp_path / "many.onnx"), "-o", str(tmp_path / "many.plan"), "--target", "sm86"]) == 1
    assert "mean of the 3841 highest pixels (top_k), TensorRT takes 3840 at most; train with" in error_line(capsys)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"product": "tensorrt-rtx", "timing_cache": Path("timings")}, "has no timing cache"),
        ({"product": "tensorrt-rtx", "targets": ("sm5",)}, "builds for"),
        ({"product": "tensorrt"}, "found no TensorRT"),
    ],
)
def test_what_cannot_be_built_is_told_before_ranges_are_measured(graph, monkeypatch, settings, words):
    """INT8 takes minutes of them."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises((ConfigError, EngineError), match=words):
        PlanBuilder(**settings).precision_of(graph)


def test_precision_in_the_graph_is_the_plans(tmp_path):
    brightness = read_graph(write_brightness_graph(tmp_path / "plate.onnx", max_batch=2))
    half = brightness.with_model(brightness.model, PrecisionRecord("fp16", {"MLP": "fp16"}))
    SM86.build(half, tmp_path / "plate.plan")
    record = Sidecar.read(tmp_path / "plate.plan").engine
    assert (record.precision, record.precision_by_class) == ("fp16", {"MLP": "fp16"})


def test_ctrl_c_during_the_build_cancels_it_and_leaves_the_old_engine(source, plan, tmp_path, caplog):
    copied(plan, tmp_path)
    before, interrupted = files(tmp_path), []

    def interrupt(severity: str, text: str) -> None:
        if "Graph optimization" in text and not interrupted:
            interrupted.append(text)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)  # until the main thread has heard of it

    before_it = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        SM86.build(read_graph(source), tmp_path / "plate.plan", on_log=interrupt)
    assert interrupted
    assert "cancelling" in caplog.text
    assert files(tmp_path) == before
    assert signal.getsignal(signal.SIGINT) is handler
    signal.signal(signal.SIGINT, before_it)


PAUSED = """
import signal, sys, time
from export import __main__
from export.pipeline import OnnxBuilder
from export.tensorrt.build import PlanBuilder

def build(self, graph, output, real=PlanBuilder.build):
    return real(self, graph, output, on_log=pause)

def pause(severity, text):
    if "Graph optimization" in text:
        print("TensorRT is at work", file=sys.stderr, flush=True)
        time.sleep(float(sys.argv[2]))

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it
PlanBuilder.build = build
sys.exit(__main__.main(["engine", sys.argv[1], "-o", sys.argv[3], "--target", "sm86"]))
"""


@pytest.mark.parametrize(("signals", "code", "pause_s"), [(1, 130, "0.5"), (2, -signal.SIGINT, "100")])
def test_ctrl_c_ends_the_program_and_leaves_nothing(source, tmp_path, signals, code, pause_s):
    """The first one waits for TensorRT's next step, the second does not wait, however long that may take."""
    command = [sys.executable, "-c", PAUSED, str(source), pause_s, str(tmp_path / "plate.plan")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as program:
        assert program.stderr is not None
        for words in ("TensorRT is at work", "Ctrl-C again")[:signals]:
            while words not in (line := program.stderr.readline()):
                assert line, "the build ended too early"
            program.send_signal(signal.SIGINT)
        program.stderr.read()
        assert program.wait() == code
    assert files(tmp_path) == {}


def test_no_space_left_keeps_the_old_engine(source, plan, tmp_path, capsys):
    copied(plan, tmp_path)
    before = files(tmp_path)
    assert len(before["plate.plan"]) > len(before["plate.plan.onnx"])
    with largest_file(len(before["plate.plan.onnx"])):
        assert main(["engine", str(source), "-o", str(tmp_path / "plate.plan"), "--target", "sm89"]) == 1
    line = error_line(capsys)
    assert "cannot write" in line
    assert "ulimit -f" in line
    assert files(tmp_path) == before


KILLED = """
import os, signal, sys
from pathlib import Path
from export.tensorrt.build import write_engine
from stlm_edge.sidecar import BuildMachine, Sidecar

folder, fatal = Path(sys.argv[1]), int(sys.argv[2])
calls = 0

def counted(function):
    def call(*arguments, **settings):
        global calls
        calls += 1
        if calls == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **settings)
    return call

os.fsync, Path.replace = counted(os.fsync), counted(Path.replace)
plan, graph = (folder / "new.plan").read_bytes(), (folder / "new.onnx").read_bytes()
write_engine(folder / "out" / "plate.plan", plan=plan, graph=graph, sidecar=Sidecar.read(folder / "new.plan"))
"""


@pytest.mark.parametrize("fatal", range(1, 8))
def test_killed_while_writing_leaves_the_old_engine_or_one_that_is_refused(plan, tmp_path, fatal):
    """Killed before each step that reaches the disk; with the seventh there is none left to be killed at."""
    (tmp_path / "out").mkdir()
    copied(plan, tmp_path / "out")
    new = b"another " + plan.read_bytes()
    (tmp_path / "new.plan").write_bytes(new)
    (tmp_path / "new.onnx").write_bytes(b"another graph")
    old = Sidecar.read(plan)
    record = dataclasses.replace(old.engine, engine_sha256=hashlib.sha256(new).hexdigest())
    dataclasses.replace(old, engine=record).write(tmp_path / "new.plan")

    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(fatal)], check=False)
    output = tmp_path / "out" / "plate.plan"
    sidecar = Sidecar.read(output)
    consistent = sha256(output) == sidecar.engine.engine_sha256
    if fatal == 7:
        assert done.returncode == 0
        assert sidecar.engine == record
        assert consistent
        return
    assert done.returncode == -signal.SIGKILL
    assert sidecar == old
    if consistent:
        assert output.read_bytes() == plan.read_bytes()
    else:
        with pytest.raises(EngineError, match=r"the engine was changed.*stlm export .*plate\.plan\.onnx"):
            open_engine(output)


@pytest.fixture
def on_orin(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt("10.3.0"))
    monkeypatch.setattr(export.tensorrt.build, "find_gpu", lambda: Gpu("Orin", "sm87", multiprocessors=16))


def test_tensorrt_with_a_gpu_records_it_and_keeps_its_timings(source, tmp_path, on_orin):
    output, cache = tmp_path / "plate.plan", tmp_path / "timings"
    for _ in range(2):
        assert main(["engine", str(source), "-o", str(output), "--timing-cache", str(cache)]) == 0
        assert cache.read_bytes() == CACHE + b"10.3.0"
    record = Sidecar.read(output).engine
    assert (record.product, record.version, record.device) == ("tensorrt", "10.3.0", "sm87")
    assert record.built_on == BuildMachine(platform.machine(), "Orin", 16)
    assert record.portability is None


def test_portable_plan_says_in_its_record_and_at_once_what_that_costs(source, tmp_path, on_orin, capsys):
    output = tmp_path / "plate.plan"
    assert stlm(["export", str(source), "-o", str(output), "--portable"]) == 0
    record = Sidecar.read(output).engine
    assert record.device == "sm80+"
    assert "runs on every GPU from sm80 on; may be slower" in str(record.portability)
    assert str(record.portability) in capsys.readouterr().out


def test_portable_plan_has_no_target(source, tmp_path, on_orin, capsys):
    arguments = ["engine", str(source), "-o", str(tmp_path / "plate.plan"), "--portable", "--target", "sm86"]
    assert main(arguments) == 1
    assert "builds only for the GPU that it runs on, found --target sm86" in error_line(capsys)


@pytest.mark.parametrize("version", ["8.6.1", "10.0.1"])
def test_tensorrt_that_is_too_old_is_one_line_and_leaves_nothing(source, tmp_path, monkeypatch, capsys, version):
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(version))
    assert main(["engine", str(source), "-o", str(tmp_path / "plate.plan")]) == 1
    assert f"found TensorRT {version}, which has no " in error_line(capsys)
    assert files(tmp_path) == {}
