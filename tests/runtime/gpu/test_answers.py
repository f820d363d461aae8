"""Answers of plans: whose they are, in what order, and what they cost."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from runtime.backends import open_engine
from stlm_edge.errors import EngineError

from ..conftest import INPUT_SIZE, SPEC
from .conftest import BATCHED, RTX_VERSION, batches, check, run_two_in_hand
from .fake_cuda import INFER_MS, POLICIES
from .fake_pycuda import COPY_MS


@pytest.mark.parametrize(
    ("version", "integrated"),
    [("10.3.0", False), ("10.3.0", True), ("11.4.0", False), (RTX_VERSION, False)],
    ids=["10.3 card", "10.3 jetson", "11.4 card", "RTX card"],
)
@pytest.mark.parametrize("policy", POLICIES)
def test_two_in_hand_have_their_own_answers_in_whatever_order_the_gpu_works(machine, policy, version, integrated):
    machine.gpu.policy, machine.gpu.is_integrated = policy, integrated
    with machine.open(version=version) as backend:
        run_two_in_hand(backend, batches(100))


@pytest.mark.parametrize("seed", range(10))
def test_two_in_hand_at_random_moments_with_and_without_a_graph(machine, seed):
    machine.gpu.policy, machine.gpu.seed = "random", seed
    machine.install(bindings=bool(seed % 2))
    with open_engine(machine.plan())[0] as backend:
        run_two_in_hand(backend, batches(100))


@pytest.mark.parametrize("version", ["10.3.0", RTX_VERSION])
@pytest.mark.parametrize("policy", POLICIES)
def test_batches_of_any_size_up_to_the_plans(machine, policy, version):
    machine.gpu.policy = policy
    with machine.open(BATCHED, version=version) as backend:
        run_two_in_hand(backend, batches(50, sizes=(1, 2, 3)))
        with pytest.raises(EngineError, match="1 to 3"):
            backend.submit(np.zeros((4, *INPUT_SIZE, 3), np.uint8))


def test_batch_of_one_costs_one(machine):
    with machine.open(BATCHED) as backend:
        machine.gpu.inferred.clear()
        for batch in batches(4, sizes=(1,)):
            backend.infer(batch)
    assert machine.gpu.inferred == [1, 1, 1, 1]


def test_next_batch_is_uploaded_while_the_first_is_inferred(machine):
    machine.gpu.policy = "first stream first"
    first, second = batches(2)
    with machine.open() as backend:
        machine.gpu.inferred.clear()
        tickets = [backend.submit(first), backend.submit(second)]
        uploads, compute = machine.gpu.queues.values()
        assert uploads.done == uploads.queued
        assert machine.gpu.inferred == []
        assert compute.done < compute.queued
        for ticket, batch in zip(tickets, (first, second), strict=True):
            check(ticket.result(), batch)


def test_map_at_full_size_stays_on_the_gpu(machine):
    with machine.open(dataclasses.replace(SPEC, full_map=True)) as backend:
        run_two_in_hand(backend, batches(4))


def test_answers_belong_to_whoever_asked(machine):
    first, *others = batches(3)
    with machine.open() as backend:
        answer = backend.submit(first).result()
        for batch in others:
            backend.submit(batch).result()
        check(answer, first)
    check(answer, first)


def test_answers_can_be_asked_for_in_another_order(machine):
    machine.gpu.policy = "lazy"
    first, second, third = batches(3)
    with machine.open() as backend:
        tickets = [backend.submit(first), backend.submit(second)]
        check(tickets[1].result(), second)
        later = backend.submit(third)
        check(tickets[0].result(), first)
        check(later.result(), third)


def test_latencies_are_the_gpus_own(machine):
    with machine.open() as backend:
        answer = backend.submit(batches(1)[0]).result()
    assert answer.infer_ms == INFER_MS
    assert answer.download_ms == 2 * COPY_MS
    assert COPY_MS < answer.upload_ms < COPY_MS + 500, "the transfer, and the copying to page-locked memory before it"


def test_nothing_is_transferred_where_memory_is_shared(machine):
    machine.gpu.is_integrated = True
    with machine.open() as backend:
        answer = backend.submit(batches(1)[0]).result()
        assert machine.gpu.left["memory"] == 7, "image, map and score of each slot once, and the scratch memory"
    assert (answer.infer_ms, answer.download_ms) == (INFER_MS, 0)


def test_scratch_memory_is_there_once(machine):
    with machine.open(scratch=1 << 20):
        sizes = [each.content.nbytes for each in machine.gpu.memory.values()]
    assert sizes.count(1 << 20) == 1


def test_plan_without_scratch_memory(machine):
    with machine.open(scratch=0) as backend:
        run_two_in_hand(backend, batches(4))


@pytest.mark.parametrize("version", ["10.3.0", RTX_VERSION])
def test_memory_stays_the_same_over_1_000_inferences(machine, version):
    small = dataclasses.replace(SPEC, input_size=(32, 32), map_size=(4, 4))
    with machine.open(small, version=version) as backend:
        batch = np.zeros((1, 32, 32, 3), np.uint8)
        before = machine.gpu.left
        for _ in range(1_000):
            backend.infer(batch)
        assert machine.gpu.left == before
