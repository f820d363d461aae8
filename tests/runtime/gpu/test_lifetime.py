"""Threads, closing, and the programs around a plan."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from runtime.backends import open_engine
from runtime.detector import Detector
from stlm_edge.errors import EngineError

from ..conftest import picture
from .conftest import batches, check, run_two_in_hand
from .fake_cuda import INFER_MS, POLICIES


def in_thread(call: Callable[[], object]) -> Any:
    """What a thread of its own returns or raises; the thread has ended then."""
    with ThreadPoolExecutor(1) as other:
        return other.submit(call).result()


def test_any_thread_may_open_call_and_close(machine):
    first, second = batches(2)
    backend = in_thread(machine.open)
    tickets = [in_thread(lambda: backend.submit(first)), backend.submit(second)]
    check(in_thread(tickets[1].result), second)
    check(tickets[0].result(), first)
    assert in_thread(tickets[0].result) is tickets[0].result()
    in_thread(backend.close)
    assert machine.gpu.left == {}


def test_no_context_is_current_between_calls(machine):
    (batch,) = batches(1)
    with machine.open() as backend:
        assert "current" not in machine.gpu.left
        ticket = backend.submit(batch)
        assert "current" not in machine.gpu.left
        ticket.result()
        assert "current" not in machine.gpu.left


def test_third_batch_must_wait_for_the_first_answer(machine):
    first, second, third = batches(3)
    with machine.open() as backend:
        tickets = [backend.submit(first), backend.submit(second)]
        with pytest.raises(EngineError, match="2 batches in hand"):
            backend.submit(third)
        check(tickets[0].result(), first)
        check(tickets[1].result(), second)


@pytest.mark.heavy
def test_plan_that_nobody_closes_is_closed_at_the_programs_end(machine):
    """Handlers run in reverse order, so the last one sees what is left."""
    path = machine.plan()
    code = f"""
import atexit, pathlib, pytest
from tests.runtime.gpu.conftest import Machine, open_engine
machine = Machine(pathlib.Path({str(machine.folder)!r}), pytest.MonkeyPatch())
atexit.register(lambda: print("left", machine.gpu.left, machine.gpu.violations))
machine.install()
kept, _ = open_engine(pathlib.Path({str(path)!r}))
print("open", machine.gpu.left["contexts"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert done.stdout.splitlines() == ["open 1", "left {} []"]


@pytest.mark.parametrize("policy", POLICIES)
def test_closing_with_batches_in_hand_waits_for_the_gpu(machine, policy):
    machine.gpu.policy = policy
    with machine.open() as backend:
        tickets = [backend.submit(batch) for batch in batches(2)]
    for ticket in tickets:
        with pytest.raises(EngineError, match="was closed before this answer was asked for"):
            ticket.result()
    with pytest.raises(EngineError, match="has been closed"):
        backend.submit(batches(1)[0])
    backend.close()


def test_two_plans_at_once_close_in_any_order(machine):
    machine.install()
    path = machine.plan()
    first, second = (open_engine(path)[0] for _ in range(2))
    run_two_in_hand(first, batches(3))
    run_two_in_hand(second, batches(3))
    first.close()
    run_two_in_hand(second, batches(3))
    second.close()


def test_detector_runs_a_plan(machine):
    machine.install()
    with Detector.open(machine.plan()) as detector:
        bright, dark = (detector.inspect(picture(value)) for value in (250, 10))
    assert (bright.is_anomalous, dark.is_anomalous) == (True, False)
    assert bright.latency.infer_ms == INFER_MS


@pytest.mark.parametrize(
    ("name", "suffix", "words"),
    [
        ("openvino", ".plan", "is an engine for tensorrt, openvino cannot run it.* an .onnx or .xml file"),
        ("onnxruntime", ".plan", "is an engine for tensorrt, onnxruntime cannot run it"),
        ("tensorrt", ".onnx", "is an engine for openvino or onnxruntime, tensorrt cannot run it.* give a .plan"),
    ],
)
def test_backend_that_cannot_run_a_file_is_refused(machine, engine, name, suffix, words):
    path = machine.plan() if suffix == ".plan" else engine
    with pytest.raises(EngineError, match=words):
        open_engine(path, backend=name)
