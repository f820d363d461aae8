"""Plans that the installed TensorRT really builds, executed where there is a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cuda.bindings import driver

from export.graph.graph import OPSET, Graph, PrecisionRecord
from export.tensorrt.build import PlanBuilder
from export.tensorrt.product import find_product
from runtime.backends import open_backend, open_engine
from runtime.backends.cuda import CudaContext
from runtime.backends.cuda_bindings import call
from runtime.backends.plan import Plan
from stlm_edge.errors import EngineError
from stlm_edge.sidecar import EngineRecord, Sidecar
from stlm_edge.tensorrt import find_gpu

from ..conftest import SPEC, brightness_graph, picture

LEAK_LIMIT_BYTES = 4 << 20


def on_gpu(test: object) -> object:
    """Marks a test of a real GPU."""
    for mark in (
        pytest.mark.gpu,
        pytest.mark.skipif(find_gpu() is None, reason="no NVIDIA GPU"),
    ):
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For this machine's GPU; where there is none, for one that TensorRT-RTX builds for without it."""
    output = tmp_path_factory.mktemp("plan") / "plate.plan"
    model = brightness_graph()
    model.opset_import[0].version = OPSET
    graph = Graph(model, SPEC, PrecisionRecord("fp32"), "a test")
    gpu, product = find_gpu(), find_product("auto")
    target = "sm86" if gpu is None else gpu.compute_capability
    if product.known_targets and target not in product.known_targets:
        pytest.skip(f"{product} does not build for {target}")
    if gpu is None and not product.known_targets:
        pytest.skip(f"{product} builds only where there is a GPU")
    targets = (target,) if product.known_targets else ()
    PlanBuilder(product=product.name, targets=targets).build(graph, output)
    return output


@pytest.mark.heavy
@pytest.mark.skipif(find_gpu() is not None, reason="has a GPU")
def test_machine_without_a_gpu_is_told_so_in_one_line(plan: Path) -> None:
    with pytest.raises(EngineError, match=r"and no NVIDIA GPU; run the plan on a machine with one") as caught:
        open_engine(plan)
    assert "\n" not in str(caught.value)


@pytest.mark.heavy
@pytest.mark.skipif(find_gpu() is not None, reason="has a GPU")
def test_tensorrt_rtx_itself_gives_its_reasons_where_it_cannot_start(plan: Path) -> None:
    trt = find_product("tensorrt-rtx").module
    with pytest.raises(EngineError, match=r"TensorRT-RTX \S+ cannot load \S+plate\.plan \(.+\); ") as caught:
        Plan(plan, trt, product="tensorrt-rtx", record=Sidecar.read(plan).engine, cuda=None)
    assert "no reason" not in str(caught.value)


def test_file_that_is_no_plan_is_refused_by_the_real_tensorrt_rtx(tmp_path: Path) -> None:
    path, trt = tmp_path / "plate.plan", find_product("tensorrt-rtx").module
    path.write_bytes(b"ptrt" + bytes(1000))
    record = EngineRecord("tensorrt-rtx", trt.__version__, "sm86", "fp16", "0" * 64)
    with pytest.raises(EngineError, match=r"TensorRT-RTX \S+ cannot load \S+plate.plan \(.*malformed engine\); build"):
        Plan(path, trt, product="tensorrt-rtx", record=record, cuda=None)


def random_batches(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (1, *SPEC.input_size, 3), np.uint8) for _ in range(count)]


@on_gpu
def test_gpu_answers_as_onnx_runtime_does_two_in_hand(plan: Path) -> None:
    given = random_batches(100)
    with open_backend(plan.with_name("plate.plan.onnx"), spec=SPEC, backend="onnxruntime") as reference:
        expected = [reference.infer(batch) for batch in given]
    with open_engine(plan)[0] as backend:
        tickets = [backend.submit(given[0])]
        for index, (maps, scores) in enumerate(expected):
            if index + 1 < len(given):
                tickets.append(backend.submit(given[index + 1]))
            answer = tickets.pop(0).result()
            np.testing.assert_allclose(answer.maps, maps, atol=1e-5)
            np.testing.assert_allclose(answer.scores, scores, atol=1e-5)
            assert answer.infer_ms > 0


def free_bytes() -> int:
    """Of the GPU's memory."""
    context = CudaContext()
    try:
        with context.current("tell what is free"):
            return int(call(driver, "cuMemGetInfo"))
    finally:
        with context.closing():
            pass


@on_gpu
def test_device_memory_stays_the_same_over_10_000_inferences(plan: Path) -> None:
    batch = random_batches(1)[0]
    with open_engine(plan)[0] as backend:
        for _ in range(100):
            backend.infer(batch)
        before = free_bytes()
        for _ in range(10_000):
            backend.infer(batch)
        assert before - free_bytes() < LEAK_LIMIT_BYTES


@on_gpu
def test_opening_and_closing_gives_everything_back(plan: Path) -> None:
    open_engine(plan)[0].close()
    before = free_bytes()
    for _ in range(20):
        with open_engine(plan)[0] as backend:
            backend.infer(random_batches(1)[0])
    assert before - free_bytes() < LEAK_LIMIT_BYTES


@on_gpu
def test_batch_that_does_not_fit_leaves_the_gpu_as_it_was(plan: Path) -> None:
    with open_engine(plan)[0] as backend:
        with pytest.raises(EngineError, match="found a batch of shape"):
            backend.infer(picture(0)[None])
        backend.infer(random_batches(1)[0])
