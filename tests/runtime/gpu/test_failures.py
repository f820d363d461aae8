"""What fails on the way, and what is left of it: nothing."""

from __future__ import annotations

import pytest

from runtime.backends import open_engine
from stlm_edge.errors import EngineError

from .conftest import RTX_VERSION, Machine, batches, check, run_two_in_hand
from .fake_cuda import FakeGpu


@pytest.mark.parametrize("version", ["10.3.0", RTX_VERSION])
@pytest.mark.parametrize("integrated", [False, True], ids=["card", "jetson"])
def test_whatever_fails_while_opening_everything_is_given_back(tmp_path, monkeypatch, version, integrated, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    counting = Machine(tmp_path, monkeypatch, FakeGpu(is_integrated=integrated))
    backend = counting.open(version=version)
    calls = counting.gpu.calls
    backend.close()
    assert calls > 50
    for number in range(1, calls + 1):
        machine = Machine(tmp_path, monkeypatch, FakeGpu(is_integrated=integrated, fail_at=number))
        try:
            opened = machine.open(version=version)
        except EngineError as error:
            assert "CUDA cannot " in str(error)
            assert "\n" not in str(error)
            # Nobody collects garbage before the context goes, and the error is still held here.
            assert machine.gpu.left == {}
        else:  # the capture failed, which is no reason to stop
            assert "no CUDA graph" in caplog.text
            assert "graphs" not in machine.gpu.left, "nor one of the other slot"
            run_two_in_hand(opened, batches(3))
            opened.close()
        assert (machine.gpu.violations, machine.gpu.left) == ([], {})
        caplog.clear()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Runtime", r"cannot start for .*\(createInferRuntime: .* error: 35 .*; factory function .*tensorrt-cu12"),
        (
            "deserialize_cuda_engine",
            r"cannot load .* \(IRuntime::deserializeCudaEngine: .*Version tag does not match.*\); build it again: ",
        ),
        ("create_execution_context", r"cannot make a context for \S+plate\.plan \(.*OutOfMemory .*\); free GPU memory"),
        ("set_tensor_address", r"cannot bind image of "),
        ("execute_async_v3", r"TensorRT 10\.3\.0 cannot run .*\(invalid resource handle\)\); check the driver"),
    ],
)
def test_what_tensorrt_refuses_is_one_line_in_its_own_words(machine, name, words):
    machine.install().is_broken = name
    with pytest.raises(EngineError, match=words) as caught:
        open_engine(machine.plan())
    assert "\n" not in str(caught.value)
    assert machine.gpu.left == {}


def test_inference_that_tensorrt_refuses_leaves_the_others_as_they_are(machine):
    trt = machine.install(bindings=False)
    first, second, third = batches(3)
    with open_engine(machine.plan())[0] as backend:
        ticket = backend.submit(first)
        trt.is_broken = "execute_async_v3"
        with pytest.raises(EngineError, match=r"cannot run .*invalid resource handle"):
            backend.submit(second)
        trt.is_broken = None
        later = backend.submit(third)
        check(ticket.result(), first)
        check(later.result(), third)


@pytest.mark.parametrize("bindings", [True, False], ids=["graph", "plain"])
def test_gpu_that_is_lost_is_one_line_and_closing_goes_on(machine, bindings, caplog):
    machine.install(bindings=bindings)
    with open_engine(machine.plan())[0] as backend:
        run_two_in_hand(backend, batches(5))
        ticket = backend.submit(batches(1)[0])
        machine.gpu.lost = True
        with pytest.raises(
            EngineError, match=r"cannot run .*unspecified launch failure\); the GPU .* was lost"
        ) as caught:
            ticket.result()
        assert "\n" not in str(caught.value)
        with pytest.raises(EngineError, match="was lost"):
            backend.submit(batches(1)[0])
    assert machine.gpu.left == {}
    assert "CUDA cannot wait for the GPU any more" in caplog.text


def test_gpu_without_room_says_what_frees_it(machine):
    machine.gpu.capacity = 50_000
    with pytest.raises(
        EngineError, match=r"cannot open .*out of memory\); free GPU memory by ending what else uses it"
    ):
        machine.open()
    assert machine.gpu.left == {}
