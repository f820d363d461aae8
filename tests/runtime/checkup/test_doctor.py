"""The doctor's report, its exit code, and engines that a machine can or cannot run."""

from __future__ import annotations

import json
import platform
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.checkup.engine import find_engine
from runtime.checkup.finding import Finding, State
from runtime.checkup.probe import Reply
from runtime.doctor import examine, main, plan_driver, usable_backends
from runtime.plan_check import Machine
from stlm_edge import EngineRecord, Sidecar
from stlm_edge.errors import EngineError
from stlm_edge.files import sha256
from stlm_edge.sidecar import BuildMachine
from stlm_edge.tensorrt import Gpu, import_product

from ..conftest import SPEC
from .conftest import Driver, Package, module_of
from .test_libraries import TENSORRT


def report(
    capsys: pytest.CaptureFixture[str], *arguments: str | Path
) -> tuple[int, dict[str, dict[str, str]], list[str]]:
    """Exit code, findings by subject, and the usable backends."""
    code = main(["--json", *map(str, arguments)])
    said = json.loads(capsys.readouterr().out)
    assert said["fit"] is (code == 0)
    return code, {finding["subject"]: finding for finding in said["findings"]}, said["backends"]


@pytest.mark.heavy
def test_this_machine_runs_engines_on_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out.splitlines()
    assert any(line.startswith("ok       OpenVINO ") for line in said)
    assert any(line.startswith("ok       disk space ") for line in said)
    assert "OpenVINO, ONNX Runtime" in said[-1]


@pytest.mark.heavy
def test_machine_without_any_backend_is_unfit_and_told_the_remedies(
    hide: Callable[..., None],
    install: Package,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hide("openvino", "tensorrt", "tensorrt_rtx")
    install("onnxruntime", "import os; os.abort()")
    assert main([]) == 1
    said = capsys.readouterr().out
    assert "missing  OpenVINO       not installed; pip install 'stlm-edge[openvino]'" in said
    assert "broken   ONNX Runtime   ends its process by SIGABRT; pip install" in said
    assert said.endswith("this machine cannot run any engine; see the lines above\n")


def test_jetson_like_machine_runs_plans(
    driver: Driver,
    install: Package,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    driver()
    install("tensorrt", TENSORRT)
    install("pycuda", "")
    (tmp_path / "packages/pycuda/driver.py").touch()
    (tmp_path / "packages/pycuda-2026.1.dist-info").mkdir()
    (tmp_path / "packages/pycuda-2026.1.dist-info/METADATA").write_text("Name: pycuda\nVersion: 2026.1\n")
    plan = tmp_path / "plate.plan"
    plan.write_bytes(b"ptrt and more")
    record = EngineRecord(
        product="tensorrt", version="10.13.0", device="sm86", precision="fp16", engine_sha256=sha256(plan)
    )
    Sidecar(spec=SPEC, engine=record).write(plan)
    code, findings, backends = report(capsys, "--engine", plan)
    assert backends[0] == "TensorRT"
    assert findings["pycuda"]["found"] == "2026.1"
    assert code == 1, "it runs plans, but not this one"
    assert findings["engine"]["found"] == (
        f"{plan} was built with TensorRT 10.13.0 for sm86, this machine has TensorRT 10.3.0 on sm87"
    )
    assert findings["engine"]["remedy"] == f"rebuild: stlm export {plan}.onnx -o {plan}"
    main([])
    assert capsys.readouterr().out.endswith("; plans by pycuda\n")


def test_tensorrt_of_jetpack_6_0_is_too_old_in_the_words_of_builder_and_runtime(
    driver: Driver, install: Package, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    driver()
    install("tensorrt", module_of("8.6.2", features=()))
    _, findings, backends = report(capsys)
    assert findings["TensorRT"]["state"] == "broken"
    assert "TensorRT" not in backends
    module = types.ModuleType("tensorrt")
    module.__dict__.update(__version__="8.6.2", Builder=object)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    with pytest.raises(EngineError) as caught:
        import_product("tensorrt")
    assert f"{findings['TensorRT']['found']}; {findings['TensorRT']['remedy']}" == str(caught.value)
    assert str(caught.value).startswith(
        "found TensorRT 8.6.2, which has no NetworkDefinitionCreationFlag.STRONGLY_TYPED, expected 10.3 or later; on a "
        "Jetson upgrade to JetPack 6.1 or later, "
    )


def test_plan_of_another_gpu_of_its_compute_capability_is_fit_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tmp_path / "plate.plan"
    plan.write_bytes(b"ptrt and more")
    built_on = BuildMachine(platform.machine(), "Orin", 16)
    record = EngineRecord("tensorrt", "10.3.0", "sm87", "fp16", sha256(plan), built_on=built_on)
    Sidecar(spec=SPEC, engine=record).write(plan)
    monkeypatch.setattr("runtime.checkup.engine.ask", lambda *_, **__: Reply((True, "runs on tensorrt, Orin")))
    same, smaller = (
        find_engine(plan, [Machine("tensorrt", "10.3.0", Gpu("Orin", "sm87", multiprocessors=number))])
        for number in (16, 8)
    )
    assert (same.state, same.found) == ("ok", f"{plan} runs on tensorrt, Orin")
    assert smaller.state == "ok"
    assert f"; {plan} was built on Orin with 16 multiprocessors, this machine has Orin with 8" in smaller.found


@pytest.mark.heavy
def test_engine_that_runs_here(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, findings, _ = report(capsys, "--engine", engine)
    assert code == 0
    assert findings["engine"]["state"] == "ok"
    assert "runs on openvino, CPU: 64 x 128 in " in findings["engine"]["found"]


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda path: path.unlink(), "is not a file"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "the engine was changed"),
        (lambda path: Sidecar.path_for(path).unlink(), "has no plate.onnx.json beside it"),
    ],
    ids=["missing", "altered", "without sidecar"],
)
def test_engine_that_does_not(
    engine: Path,
    tmp_path: Path,
    damage: Callable[[Path], object],
    found: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = Path(shutil.copy(engine, tmp_path / "plate.onnx"))
    shutil.copy(Sidecar.path_for(engine), Sidecar.path_for(own))
    damage(own)
    code, findings, backends = report(capsys, "--engine", own)
    assert code == 1
    assert "OpenVINO" in backends
    assert found in findings["engine"]["found"]
    assert findings["engine"]["remedy"]


@pytest.mark.heavy
def test_engine_that_no_library_here_runs(
    engine: Path,
    hide: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    hide("openvino", "onnxruntime")
    code, findings, _ = report(capsys, "--engine", engine)
    assert code == 1
    assert findings["engine"]["state"] == "broken"


def test_opencv_is_needed_by_every_backend() -> None:
    fine = [Finding(name, "ok", "1") for name in ("OpenVINO", "ONNX Runtime", "OpenCV")]
    assert usable_backends(fine) == ["OpenVINO", "ONNX Runtime"]
    assert usable_backends(fine[:-1]) == []


@pytest.mark.parametrize("absent", ["NVIDIA driver", "GPU", "TensorRT", "pycuda"])
def test_tensorrt_needs_driver_gpu_library_and_pycuda(absent: str) -> None:
    names = ("OpenCV", "NVIDIA driver", "GPU", "TensorRT", "pycuda")
    assert usable_backends([Finding(name, "ok", "1") for name in names]) == ["TensorRT"]
    states = [Finding(name, "broken" if name == absent else "ok", "1") for name in names]
    assert usable_backends(states) == []


@pytest.mark.parametrize(
    ("pycuda", "bindings", "by"),
    [
        ("ok", "ok", "pycuda"),
        ("missing", "ok", "cuda-bindings"),
        ("broken", "ok", None),
        ("missing", "missing", None),
    ],
)
def test_plans_run_by_cuda_bindings_where_pycuda_is_not_installed(
    pycuda: State, bindings: State, by: str | None
) -> None:
    fine = [Finding(name, "ok", "1") for name in ("OpenCV", "NVIDIA driver", "GPU", "TensorRT")]
    findings = [*fine, Finding("pycuda", pycuda, "1"), Finding("cuda-bindings", bindings, "1")]
    assert usable_backends(findings) == (["TensorRT"] if by else [])
    assert by in (None, plan_driver(findings))


@pytest.mark.heavy
def test_folder_that_is_gone_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    (space,) = [finding for finding in examine(None) if finding.subject == "disk space"]
    assert space.state == "broken"
