"""Names of pycuda and cuda-bindings that running a plan uses: are they there, and do the fakes have no other?

`cuda_api/names.json` was written by hand. What lies beside it was recorded from the published source of pycuda by the
script there; cuda-bindings are installed. `tests/test_tensorrt_api.py` has TensorRT's.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cuda.bindings import driver

from ...api_names import dotted, missing
from .fake_cuda import FakeGpu

HERE = Path(__file__).parent
SOURCES = Path(__file__).parents[3] / "runtime" / "backends"


def read(name: str) -> Any:
    return json.loads((HERE / name).read_text())


NAMES = read("cuda_api/names.json")
PYCUDA = read("cuda_api/pycuda.json")


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
    files = ("cuda_bindings.py", "cuda_graph.py", "cuda_pycuda.py", "tensorrt.py")
    text = "".join((SOURCES / name).read_text() for name in files)
    subclasses = {"LaunchError", "LogicError", "MemoryError", "RuntimeError"}
    types = {"DeviceAllocation"}
    by_attribute = {"PagelockedHostAllocation", "__int__"}
    used = set(re.findall(r"\w+", text))
    assert {name.split(".")[-1] for name in dotted(NAMES, *NAMES)} - used - subclasses - types - by_attribute == set()


@pytest.mark.parametrize(
    ("groups", "fake"),
    [
        (("pycuda",), FakeGpu().driver),
        (("cuda graphs",), FakeGpu().bindings),
    ],
    ids=["pycuda", "CUDA graphs"],
)
def test_fakes_have_the_recorded_names_and_no_other(groups, fake):
    """So whatever is used without being recorded fails with the fake."""
    recorded = dotted(NAMES, *groups)
    assert missing(fake, recorded) == []
    public = {name for name in vars(fake) if not name.startswith("_")}
    assert public == {name for name in recorded if "." not in name}
    for owner in ("Stream", "Event", "Context", "Device"):
        if hasattr(fake, owner):
            has = {name for name in vars(getattr(fake, owner)) if not name.startswith("_")}
            known = {name.split(".")[1] for name in recorded if name.startswith(f"{owner}.")}
            assert has - known <= {"number", "is_valid"}
