"""How kernels are launched, and the ones that TensorRT-RTX compiles at the first start."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from runtime.backends import open_engine
from stlm_edge.files import cache_folder, sha256

from ...fake_tensorrt import KERNELS
from .conftest import RTX_VERSION, batches, run_two_in_hand


def test_launches_are_recorded_once_for_each_slot(machine, caplog):
    with caplog.at_level(logging.INFO), machine.open() as backend:
        assert backend.device == "Fake RTX 3090, a CUDA graph"
        assert machine.gpu.left["graphs"] == 2
        run_two_in_hand(backend, batches(10))
    assert machine.gpu.launched_graphs == 12, "one each to try it"
    assert "plate.plan runs on tensorrt, Fake RTX 3090, a CUDA graph" in caplog.text


@pytest.mark.parametrize("name", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"])
@pytest.mark.parametrize("policy", ["lazy", "random"])
def test_capture_that_fails_leaves_plain_launches_and_a_warning(machine, name, policy, caplog):
    machine.gpu.fail_capture, machine.gpu.policy = name, policy
    with machine.open() as backend:
        assert backend.device == "Fake RTX 3090, plain launches"
        assert "graphs" not in machine.gpu.left
        run_two_in_hand(backend, batches(10))
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert f"{name} failed: operation failed due to a previous error during capture" in warning.getMessage()


def test_kernels_that_cannot_be_captured_are_launched_plainly(machine, caplog):
    trt = machine.install()
    original = trt.IExecutionContext.execute_async_v3

    def execute(self: Any, stream_handle: int) -> bool:
        if machine.gpu.queues[stream_handle].recording is None:
            return original(self, stream_handle)
        self._log.log(trt.ILogger.Severity.ERROR, "operation not permitted when stream is capturing")
        return False

    trt.IExecutionContext.execute_async_v3 = execute
    with open_engine(machine.plan())[0] as backend:
        run_two_in_hand(backend, batches(10))
    assert "no CUDA graph" in caplog.text
    assert "not permitted when stream is capturing" in caplog.text


def test_without_cuda_bindings_launches_are_plain_and_the_log_says_how_to_get_them(machine, caplog):
    machine.install(bindings=False)
    with caplog.at_level(logging.INFO), open_engine(machine.plan())[0] as backend:
        assert backend.device == "Fake RTX 3090, plain launches"
    assert "pip install cuda-bindings" in caplog.text


def test_tensorrt_rtx_records_its_own_graphs(machine):
    with machine.open(version=RTX_VERSION) as backend:
        assert backend.device == f"Fake RTX 3090, CUDA graphs of TensorRT-RTX {RTX_VERSION}"
        assert "graphs" not in machine.gpu.left


def kernel_file(folder: Path) -> Path:
    (path,) = (folder / "cache" / "stlm-edge" / "tensorrt-rtx").iterdir()
    return path


def test_kernels_of_tensorrt_rtx_are_kept_for_the_next_start(machine, caplog):
    machine.open(version=RTX_VERSION).close()
    path = kernel_file(machine.folder)
    assert path.read_bytes() == KERNELS
    assert RTX_VERSION in path.name
    assert "Fake-RTX-3090" in path.name
    assert sha256(machine.folder / "plate.plan")[:16] in path.name
    longer = KERNELS + b" of the first start"
    path.write_bytes(longer)
    trt = machine.install(version=RTX_VERSION)
    read = []
    original = trt.IRuntimeCache.deserialize
    trt.IRuntimeCache.deserialize = lambda self, blob: read.append(blob) or original(self, blob)
    with open_engine(machine.plan(version=RTX_VERSION))[0] as backend:
        run_two_in_hand(backend, batches(3))
    assert read == [longer]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("content", [b"", b"damaged"])
def test_kernels_that_are_damaged_are_compiled_again(machine, content, caplog):
    machine.open(version=RTX_VERSION).close()
    path = kernel_file(machine.folder)
    path.write_bytes(content)
    with machine.open(version=RTX_VERSION) as backend:
        run_two_in_hand(backend, batches(3))
    assert "is damaged or of another driver, so its kernels are compiled again" in caplog.text
    assert path.read_bytes() == KERNELS


def test_place_that_cannot_be_written_to_costs_only_the_kernels(machine, caplog):
    (machine.folder / "cache").write_text("a file where a folder should be")
    with machine.open(version=RTX_VERSION) as backend:
        run_two_in_hand(backend, batches(3))
    assert "cannot be read" in caplog.text
    assert "kernels are not kept" in caplog.text


def test_kernels_that_cannot_be_serialised_cost_nothing_else(machine, caplog):
    machine.install(version=RTX_VERSION).is_broken = "serialize"
    with open_engine(machine.plan(version=RTX_VERSION))[0] as backend:
        run_two_in_hand(backend, batches(3))
    assert "kernels are not kept" in caplog.text


def test_tensorrt_keeps_no_kernels(machine):
    machine.open().close()
    assert not cache_folder().exists()
