"""Which plans are opened, and what is said of the others."""

from __future__ import annotations

import dataclasses
import logging
import platform
import sys

import pytest

from export.graph.graph import OPSET, Graph, PrecisionRecord
from export.tensorrt.build import PlanBuilder
from runtime.backends import open_backend, open_engine, plan
from runtime.backends.cuda import open_driver
from stlm_edge.errors import EngineError
from stlm_edge.sidecar import BuildMachine, Sidecar

from ..conftest import SPEC, brightness_graph
from .conftest import RTX_VERSION, NotThere, batches, run_two_in_hand


def test_plan_that_tensorrt_rtx_finds_invalid_is_refused_with_its_reasons(machine):
    words = rf"TensorRT-RTX {RTX_VERSION} cannot load .* \(version mismatch; old cuda driver\)"
    with pytest.raises(EngineError, match=words):
        machine.open(version=RTX_VERSION, validity="INVALID", diagnostics=5)


def test_plan_that_tensorrt_rtx_finds_slow_is_run_and_warned_of(machine, caplog):
    with machine.open(version=RTX_VERSION, device="sm80+", validity="SUBOPTIMAL") as backend:
        run_two_in_hand(backend, batches(3))
    assert "runs slower than it could" in caplog.text
    assert "--product tensorrt-rtx --target sm86" in caplog.text


@pytest.mark.parametrize(
    ("built", "installed", "words"),
    [
        ({"version": "10.3.0"}, "10.13.0", "built with TensorRT 10.3.0 for sm86, this machine has TensorRT 10.13.0 on"),
        ({"version": "10.3.0", "device": "sm87"}, "10.3.0", "for sm87, this machine has TensorRT 10.3.0 on sm86"),
        ({"version": "10.3.0"}, RTX_VERSION, "TensorRT 10.3.0 for sm86, this machine has TensorRT-RTX 1.7.1"),
        ({"version": RTX_VERSION}, "10.3.0", "TensorRT-RTX 1.7.1.116 for sm86, this machine has TensorRT 10.3.0"),
    ],
    ids=["version", "gpu", "product", "other product"],
)
def test_plan_of_another_machine_is_refused_with_the_command_that_rebuilds_it(machine, built, installed, words):
    machine.install(version=installed)
    path = machine.plan(**built)
    for attempt in (lambda: open_engine(path), lambda: open_backend(path, spec=SPEC)):
        with pytest.raises(EngineError) as caught:
            attempt()
        assert words in str(caught.value)
        assert f"rebuild: stlm export {path}.onnx -o {path}" in str(caught.value)
    assert machine.gpu.calls == 0, "before CUDA was started"


@pytest.mark.parametrize("version", ["8.6.1", "10.0.1"])
def test_machine_with_too_old_a_tensorrt_is_told_so(machine, version):
    machine.install(version=version)
    with pytest.raises(
        EngineError, match=rf"found TensorRT {version}, which has no .*, expected 10\.3 or later; on a Je"
    ):
        open_engine(machine.plan())
    assert machine.gpu.calls == 0


def test_plan_of_another_gpu_is_run_and_warned_of(machine, caplog):
    machine.install()
    path = machine.plan()
    whole = Sidecar.read(path)
    for multiprocessors, warned in ((82, False), (20, True)):
        built_on = BuildMachine(platform.machine(), "Fake RTX 3090", multiprocessors)
        dataclasses.replace(whole, engine=dataclasses.replace(whole.engine, built_on=built_on)).write(path)
        with open_engine(path)[0] as backend:
            run_two_in_hand(backend, batches(3))
        assert ("was built on Fake RTX 3090 with 20 multiprocessors, this machine has" in caplog.text) is warned
    assert f"may be slow or fail; rebuild: stlm export {path}.onnx -o {path}" in caplog.text


def test_plan_that_was_built_here_runs_here(machine, caplog):
    machine.install()
    machine.patch.setattr("export.tensorrt.build.find_gpu", plan.find_gpu)
    model = brightness_graph()
    model.opset_import[0].version = OPSET
    path = machine.folder / "plate.plan"
    PlanBuilder(product="tensorrt").build(Graph(model, SPEC, PrecisionRecord("fp32"), "a test"), path)
    with open_engine(path)[0] as backend:
        run_two_in_hand(backend, batches(3))
    assert "was built on" not in caplog.text


def test_machine_without_a_gpu(machine):
    machine.install()
    machine.patch.setattr("runtime.backends.plan.find_gpu", lambda: None)
    with pytest.raises(
        EngineError, match=r"has TensorRT 10\.3\.0 and no NVIDIA GPU; run the plan on a machine with one"
    ):
        open_engine(machine.plan())


def test_machine_without_tensorrt_says_how_to_get_the_one_that_built_the_plan(machine):
    machine.install()
    machine.patch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(
        EngineError, match=r"neither .* expected TensorRT 10\.3\.0 to run .*; TensorRT: pip install tensor"
    ):
        open_engine(machine.plan())


def test_machine_without_pycuda_and_cuda_bindings_says_how_to_get_them(machine):
    machine.install(bindings=False)
    for name in ("pycuda", "pycuda.driver"):
        machine.patch.delitem(sys.modules, name)
    machine.patch.setattr(sys, "meta_path", [NotThere("pycuda"), *sys.meta_path])
    with pytest.raises(
        EngineError,
        match=r"found neither pycuda nor cuda-bindings.*pip install cuda-bindings.*stlm-edge\[tensorrt\]'.*nvcc",
    ):
        open_engine(machine.plan())


def test_machine_without_pycuda_runs_plans_by_cuda_bindings_alone_and_the_log_says_so(machine, caplog):
    machine.install()
    with caplog.at_level(logging.INFO):
        assert open_driver().title == "pycuda"
    assert "CUDA by pycuda" in caplog.text
    for name in ("pycuda", "pycuda.driver"):
        machine.patch.delitem(sys.modules, name)
    machine.patch.setattr(sys, "meta_path", [NotThere("pycuda"), *sys.meta_path])
    with caplog.at_level(logging.INFO):
        assert open_driver().title == "cuda-bindings"
    assert "CUDA by cuda-bindings" in caplog.text


@pytest.mark.parametrize("reason", ["libcurand.so.10: cannot open shared object file", "numpy.core.multiarray failed"])
def test_pycuda_that_does_not_work_says_how_to_compile_it_again(machine, reason):
    machine.install()
    (machine.folder / "pycuda").mkdir()
    (machine.folder / "pycuda" / "__init__.py").write_text("")
    (machine.folder / "pycuda" / "driver.py").write_text(f"raise ImportError({reason!r})")
    machine.patch.delitem(sys.modules, "pycuda")
    machine.patch.delitem(sys.modules, "pycuda.driver")
    machine.patch.syspath_prepend(machine.folder)
    with pytest.raises(EngineError, match=rf"pycuda is there but does not work \({reason}\).*--no-binary pycuda"):
        open_engine(machine.plan())
    sys.modules.pop("pycuda", None)


@pytest.mark.parametrize(("field_", "value"), [("map_size", (16, 32)), ("max_batch", 2), ("full_map", True)])
def test_plan_of_another_shape_than_its_sidecar_says_is_refused(machine, field_, value):
    machine.install()
    path = machine.plan()
    with pytest.raises(EngineError, match=r"has the inputs image uint8 \(1, 64, 128, 3\).*its sidecar expects"):
        open_backend(path, spec=dataclasses.replace(SPEC, **{field_: value}))
    assert machine.gpu.left == {}


def test_plan_that_takes_other_numbers_is_refused(machine):
    with pytest.raises(EngineError, match=r"image HALF .* expects the inputs image uint8"):
        machine.open(dtype="HALF")
