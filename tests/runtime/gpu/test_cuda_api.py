"""Names of TensorRT, pycuda and cuda-bindings that running a plan uses: are they there, and do the fakes have no other?

Each `names.json` was written by hand. What lies beside them was recorded from published packages by the scripts in
`cuda_api` and `tests/export/plan/tensorrt_api`; TensorRT-RTX and cuda-bindings are installed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import tensorrt_rtx
from cuda.bindings import driver

from runtime.backends.plan import Plan
from stlm_edge.errors import EngineError
from stlm_edge.sidecar import EngineRecord

from ...api_names import dotted, missing
from .fake_cuda import FakeGpu
from .fake_tensorrt import fake_tensorrt

HERE = Path(__file__).parent
SOURCES = Path(__file__).parents[3] / "runtime" / "backends"


def read(name: str) -> Any:
    return json.loads((HERE / name).read_text())


NAMES = {**read("tensorrt_api/names.json"), **read("cuda_api/names.json")}
BINDINGS = read("tensorrt_api/bindings.json")
STUBS = read("tensorrt_api/stubs.json")["declarations"]
PYCUDA = read("cuda_api/pycuda.json")

CALLS = {
    "ICudaEngine.create_execution_context": 1,
    "ICudaEngine.get_tensor_dtype": 1,
    "ICudaEngine.get_tensor_mode": 1,
    "ICudaEngine.get_tensor_name": 1,
    "ICudaEngine.get_tensor_shape": 1,
    "IExecutionContext.execute_async_v3": 1,
    "IExecutionContext.set_device_memory": 2,
    "IExecutionContext.set_input_shape": 2,
    "IExecutionContext.set_tensor_address": 2,
    "IRuntimeConfig.set_execution_context_allocation_strategy": 1,
    "Runtime.deserialize_cuda_engine": 1,
}
"""How many arguments each function of TensorRT is called with."""

FOR_TESTS = {"number", "is_valid", "is_mapped", "content", "address", "NONE", "OUTPUT", "HALF", "STATIC", "DISABLED"}
FOR_TESTS |= {"VALID", "FAILED", "CUDA_ERROR_LAUNCH_FAILED"}
"""What the fakes have in excess."""


def test_installed_tensorrt_rtx_has_what_is_used():
    assert missing(tensorrt_rtx, dotted(NAMES, "always", "tensorrt-rtx")) == []


def test_stubs_of_tensorrt_declare_what_is_used():
    assert set(dotted(NAMES, "always")) - set(STUBS) == set()


def test_functions_take_the_arguments_they_are_called_with():
    for name, given in CALLS.items():
        arguments = re.fullmatch(r"def \w+\(self(?:, )?(.*)\) -> .*", STUBS[name])
        assert arguments is not None, name
        declared = [argument for argument in re.split(r", (?=\w+:)", arguments[1]) if argument]
        required = [argument for argument in declared if " = " not in argument]
        assert len(required) <= given <= len(declared), name


@pytest.mark.parametrize("version", ["10.3.0", "10.13.0", "11.4.0"])
def test_published_bindings_of_every_version_have_what_is_used(version):
    used = {part for name in dotted(NAMES, "always") for part in name.split(".")}
    assert used - set(BINDINGS[version]) == set()


def test_what_tells_tensorrt_rtx_is_in_no_version_of_tensorrt():
    for name in ("CudaGraphStrategy", "get_engine_validity"):
        assert name in {each.split(".")[-1] for each in dotted(NAMES, "tensorrt-rtx")}
        assert all(name not in names for names in BINDINGS.values())


def test_source_of_pycuda_declares_what_is_used():
    assert set(dotted(NAMES, "pycuda")) - set(PYCUDA["declarations"]) == set()


def test_installed_cuda_bindings_have_what_is_used():
    assert missing(driver, dotted(NAMES, "cuda graphs", "cuda-bindings")) == []


def test_cuda_bindings_take_handles_as_integers_and_answer_with_a_status_first():
    """Which also holds where there is no driver: then it is that which is missed."""
    calls = (
        lambda: driver.cuStreamBeginCapture(0, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL),
        lambda: driver.cuGraphInstantiate(0, 0),
    )
    for call in calls:
        try:
            status, *_ = call()
        except RuntimeError as error:
            assert "driver" in str(error)
        else:
            assert isinstance(status, driver.CUresult)
            assert status != driver.CUresult.CUDA_SUCCESS


def test_every_recorded_name_is_used():
    files = ("cuda_bindings.py", "cuda_graph.py", "cuda_pycuda.py", "kernel_cache.py", "plan.py", "tensorrt.py")
    text = "".join((SOURCES / name).read_text() for name in files)
    text += (SOURCES.parents[1] / "stlm_edge" / "tensorrt.py").read_text()
    subclasses = {"LaunchError", "LogicError", "MemoryError", "RuntimeError"}
    types = {"DataType", "DeviceAllocation", "ICudaEngine", "IExecutionContext", "IRuntimeConfig"}
    by_attribute = {"PagelockedHostAllocation", "__int__"}
    used = set(re.findall(r"\w+", text))
    assert {name.split(".")[-1] for name in dotted(NAMES, *NAMES)} - used - subclasses - types - by_attribute == set()


@pytest.mark.parametrize(
    ("groups", "fake"),
    [
        (("always",), fake_tensorrt("10.3.0", FakeGpu())),
        (("always", "tensorrt-rtx"), fake_tensorrt("1.7.1", FakeGpu(), rtx=True)),
        (("pycuda",), FakeGpu().driver),
        (("cuda graphs",), FakeGpu().bindings),
    ],
    ids=["TensorRT", "TensorRT-RTX", "pycuda", "CUDA graphs"],
)
def test_fakes_have_the_recorded_names_and_no_other(groups, fake):
    """So whatever is used without being recorded fails with the fake."""
    recorded = dotted(NAMES, *groups)
    assert missing(fake, recorded) == []
    public = {name for name in vars(fake) if not name.startswith("_")} - {"is_broken"}
    assert public == {name for name in recorded if "." not in name}
    for owner in (
        "Stream",
        "Event",
        "Context",
        "Device",
        "ICudaEngine",
        "IExecutionContext",
        "Runtime",
        "IRuntimeConfig",
    ):
        if hasattr(fake, owner):
            has = {name for name in vars(getattr(fake, owner)) if not name.startswith("_")}
            known = {name.split(".")[1] for name in recorded if name.startswith(f"{owner}.")}
            assert has - known <= {"number", "is_valid"}


def test_file_that_is_no_plan_is_refused_by_the_real_tensorrt_rtx(tmp_path):
    path = tmp_path / "plate.plan"
    path.write_bytes(b"ptrt" + bytes(1000))
    record = EngineRecord("tensorrt-rtx", tensorrt_rtx.__version__, "sm86", "fp16", "0" * 64)
    with pytest.raises(EngineError, match=r"TensorRT-RTX \S+ cannot load \S+plate.plan \(.*malformed engine\); build"):
        Plan(path, tensorrt_rtx, product="tensorrt-rtx", record=record, cuda=None)
