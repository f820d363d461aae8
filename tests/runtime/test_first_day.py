"""The first day on a machine with a GPU, tried on a simulated one: the driver's stub and TensorRT's fake."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import onnx
import pytest

import runtime.first_day
from export.graph.graph import OPSET, Graph, PrecisionRecord
from runtime.doctor import main
from runtime.first_day import first_day
from stlm_edge.errors import ConfigError
from stlm_edge.files import sha256
from stlm_edge.sidecar import EngineRecord, Sidecar
from stlm_edge.spec import Threshold
from stlm_edge.steps import Outcome

from .conftest import SPEC, brightness_graph
from .gpu.libcuda.build_pycuda import build_libcuda

ROOT = Path(__file__).parents[2]

TENSORRT = """
import sys
from tests.fake_tensorrt import fake_tensorrt
from tests.runtime.gpu.real_driver import RealGpu
sys.modules["tensorrt"] = fake_tensorrt("10.3.0", RealGpu())
"""
GPU_TEST = """
import pytest
@pytest.mark.gpu
def test_gpu(): pass
"""
PROGRAM = """
import sys
from pathlib import Path
import runtime.first_day
runtime.first_day.FRAMES = 30
runtime.first_day._TESTS = Path({tests!r})
from runtime.doctor import main
sys.exit(main({arguments!r}))
"""


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """The brightness of a picture, as `export onnx` would leave it."""
    path = tmp_path / "bright.onnx"
    model = brightness_graph()
    model.opset_import[0].version = OPSET
    spec = dataclasses.replace(SPEC, threshold=Threshold(0.5, "manual", 0))
    path.write_bytes(Graph(model, spec, PrecisionRecord("fp32"), "a test").to_bytes())
    onnx.checker.check_model(path)
    Sidecar(spec, EngineRecord("onnx", "1", "any", "fp32", sha256(path))).write(path)
    return path


def record_of(report: Path) -> dict[str, Any]:
    with zipfile.ZipFile(report) as archive:
        found: dict[str, Any] = json.loads(archive.read("first-day.json"))
    return found


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc to compile the driver with")
def test_simulated_gpu_is_told_of_from_the_doctor_to_the_latency(tmp_path: Path, graph: Path) -> None:
    driver, modules, tests = (tmp_path / name for name in ("driver", "modules", "tests"))
    for folder in (driver, modules, tests):
        folder.mkdir()
    build_libcuda(driver)
    (modules / "tensorrt.py").write_text(TENSORRT)
    (tests / "test_one.py").write_text(GPU_TEST)
    report = tmp_path / "out.zip"
    arguments = ["--first-day", str(report), "--graph", str(graph)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(tests=str(tests), arguments=arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(modules))),
            "LD_LIBRARY_PATH": str(driver),
            "STLM_SOURCE": "rtsp://root:s3cr3t@camera/1",
        },
    )
    steps = {step["name"]: (step["status"], step["reason"]) for step in record_of(report)["steps"]}
    of_the_plan = [f"{step}-bright.fp16" for step in ("build", "verify", "frames")]
    for name in ("doctor", "pictures", *of_the_plan, "gpu-tests", "latency"):
        assert steps[name] == ("done", None), done.stderr
    assert steps["build-bright.int8"][0] == "failed"  # the graph has nothing that is quantised
    assert done.returncode == 1
    assert "frame to verdict" in done.stdout
    with zipfile.ZipFile(report) as archive:
        names = set(archive.namelist())
        texts = "".join(archive.read(name).decode() for name in names)
    assert {"build-bright.int8.log", "verify-bright.fp16.json", "frames-bright.fp16.json", "latency.json"} <= names
    assert {Path(name).suffix for name in names} <= {".json", ".log"}
    assert "s3cr3t" not in texts
    assert "/.out.zip." not in texts  # the folder of the steps is WORK
    assert list(tmp_path.glob(".out.zip*")) == []


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The steps that would have been run; each leaves a log and is done, but those that begin with `build`."""
    run: list[str] = []

    def do(name: str, command: Any, *, shown: Any, log: Path, limit_s: float) -> Outcome:
        run.append(name)
        log.write_text(f"{Path.home()}/parts/1.png on {socket.gethostname()}: password=s3cr3t")
        (log.parent / f"{name}.png").touch()
        return Outcome(name, "failed" if name.startswith("build") else "done", seconds=1.0, command=tuple(shown))

    monkeypatch.setattr(runtime.first_day, "do", do)
    monkeypatch.setattr(runtime.first_day, "version", lambda: "0.2.0")  # which asks git
    return run


def test_without_a_plan_the_rest_is_left_out_and_all_is_told(
    tmp_path: Path, graph: Path, programs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "out.zip"
    assert main(["--first-day", str(report), "--graph", str(graph), "--graph", str(graph)]) == 1
    assert programs[:2] == ["doctor", "pictures"]
    assert {"build-bright.fp16", "build-bright.int8"} <= set(programs)
    steps = {step["name"]: step for step in record_of(report)["steps"]}
    assert steps["gpu-tests"]["reason"] == "found no NVIDIA GPU"
    assert steps["latency"]["reason"] == "there is no plan to measure"
    assert "failed   build-bright.int8" in capsys.readouterr().err


def test_file_has_no_picture_no_secret_and_no_name_of_user_and_machine(
    tmp_path: Path, graph: Path, programs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "press-7")
    assert not first_day(tmp_path / "out.zip", graphs=[graph], data=None, tell=lambda outcome: None)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert {Path(name).suffix for name in archive.namelist()} == {".json", ".log"}
        assert archive.read("doctor.log").decode() == "~/parts/1.png on HOST: password=***"


def test_file_is_there_after_each_step(tmp_path: Path, graph: Path, programs: list[str]) -> None:
    """A machine whose memory runs out may go down in the middle."""
    told: list[list[str]] = []

    def tell(outcome: Outcome) -> None:
        told.append([step["name"] for step in record_of(tmp_path / "out.zip")["steps"]])
        assert told[-1][-1] == outcome.name

    first_day(tmp_path / "out.zip", graphs=[graph], data=None, tell=tell)
    assert [len(names) for names in told] == list(range(1, len(told) + 1))


def test_machine_without_torch_and_graph_says_where_one_is_from(
    tmp_path: Path, programs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtime.first_day, "find_spec", lambda name: None)
    first_day(tmp_path / "out.zip", graphs=[], data=None, tell=lambda outcome: None)
    steps = {step["name"]: step for step in record_of(tmp_path / "out.zip")["steps"]}
    assert "run 'make demo' on another machine" in steps["graph"]["reason"]
    assert not [name for name in programs if name.startswith("build")]


@pytest.mark.parametrize(
    ("name", "graph_name", "words"),
    [("out.zip", "none.onnx", "none.onnx does not exist"), ("out.tar", None, "with the suffix .zip")],
)
def test_wrong_use_is_one_line(
    tmp_path: Path, name: str, graph_name: str | None, words: str, programs: list[str]
) -> None:
    with pytest.raises(ConfigError, match=words):
        first_day(
            tmp_path / name, graphs=[tmp_path / graph_name] if graph_name else [], data=None, tell=lambda outcome: None
        )
    assert not programs


def test_options_of_the_first_day_are_for_it_alone() -> None:
    assert main(["--graph", "a.onnx"]) == 2
