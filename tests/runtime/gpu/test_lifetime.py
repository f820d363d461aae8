"""Threads, closing, and the programs around a plan."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.backends import open_engine
from runtime.detector import Detector
from stlm_edge.errors import EngineError

from ..conftest import picture
from .conftest import batches, check, run_two_in_hand
from .fake_cuda import INFER_MS, POLICIES


def in_thread(call: Callable[[], object]) -> list[Exception]:
    caught: list[Exception] = []

    def run() -> None:
        try:
            call()
        except EngineError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return caught


def test_other_threads_are_refused_and_harm_nothing(machine):
    (batch,) = batches(1)
    with machine.open() as backend:
        ticket = backend.submit(batch)
        for call in (lambda: backend.submit(batch), ticket.result, backend.close):
            (error,) = in_thread(call)
            assert "was opened by another thread" in str(error)
        check(ticket.result(), batch)


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
    """pycuda would abort the program; handlers run in reverse order, so the last one sees what is left."""
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
