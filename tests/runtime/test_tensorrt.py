"""Plans on a GPU that is simulated; see `fake_cuda.py` for what it holds against whoever uses it carelessly."""

from __future__ import annotations

import dataclasses
import gc
import logging
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.backends import open_backend, open_engine
from runtime.backends.base import Backend
from runtime.detector import Detector
from stlm_edge import EngineRecord, Sidecar
from stlm_edge.errors import EngineError
from stlm_edge.files import cache_folder, sha256
from stlm_edge.gpu import Gpu
from stlm_edge.spec import ModelSpec

from .conftest import INPUT_SIZE, SPEC, picture
from .fake_cuda import COPY_MS, INFER_MS, POLICIES, FakeGpu
from .fake_tensorrt import KERNELS, brightness, fake_plan, fake_tensorrt

BATCHED = dataclasses.replace(SPEC, max_batch=3)
RTX_VERSION = "1.7.1.116"


@dataclass
class Machine:
    """A computer with a GPU; its GPU, TensorRT and what is installed can be changed before a plan is opened."""

    folder: Path
    patch: pytest.MonkeyPatch
    gpu: FakeGpu = field(default_factory=FakeGpu)

    def install(self, *, version: str = "10.3.0", bindings: bool = True) -> Any:
        """TensorRT of a version; TensorRT-RTX if it begins with `1.`. Returns the module."""
        rtx = version.startswith("1.")
        trt = fake_tensorrt(version, self.gpu, rtx=rtx)
        pycuda = types.ModuleType("pycuda")
        packages = {"pycuda": pycuda, "pycuda.driver": self.gpu.driver}
        packages["tensorrt"], packages["tensorrt_rtx"] = (None, trt) if rtx else (trt, None)
        packages["cuda.bindings.driver"] = self.gpu.bindings if bindings else None
        for name in ("cuda", "cuda.bindings"):
            packages[name] = types.ModuleType(name) if bindings else None
        for name, module in packages.items():
            self.patch.setitem(sys.modules, name, module)
        self.patch.setattr("runtime.backends.plan.find_gpu", lambda: Gpu("Fake RTX 3090", "sm86"))
        return trt

    def plan(self, spec: ModelSpec = SPEC, *, version: str = "10.3.0", device: str = "sm86", **changes: Any) -> Path:
        """A plan that was built by a version for a GPU."""
        path = self.folder / "plate.plan"
        path.write_bytes(fake_plan(spec, **changes))
        record = EngineRecord(
            flavour="tensorrt-rtx" if version.startswith("1.") else "tensorrt",
            version=version,
            device=device,
            precision="fp16",
            engine_sha256=sha256(path),
        )
        Sidecar(spec=spec, engine=record).write(path)
        return path

    def open(self, spec: ModelSpec = SPEC, *, version: str = "10.3.0", **changes: Any) -> Backend:
        self.install(version=version)
        return open_engine(self.plan(spec, version=version, **changes))[0]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """At the end everything must have been given back, and nothing done that no GPU forgives."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = Machine(tmp_path, monkeypatch)
    yield made
    gc.collect()
    assert made.gpu.violations == []
    assert made.gpu.left == {}


def batches(count: int, *, sizes: tuple[int, ...] = (1,)) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (int(random.choice(sizes)), *INPUT_SIZE, 3), np.uint8) for _ in range(count)]


def check(answer: Any, batch: np.ndarray) -> None:
    maps, scores = brightness(batch, SPEC.map_size)
    np.testing.assert_array_equal(answer.maps, maps)
    np.testing.assert_array_equal(answer.scores, scores)


def run_two_in_hand(backend: Backend, given: list[np.ndarray]) -> None:
    """As the line does: the next batch is submitted before the answer to the last one is asked for."""
    waiting: list[tuple[Any, np.ndarray]] = []
    for batch in given:
        waiting.append((backend.submit(batch), batch))
        if len(waiting) == 2:
            ticket, first = waiting.pop(0)
            check(ticket.result(), first)
    for ticket, batch in waiting:
        check(ticket.result(), batch)


@pytest.mark.parametrize("integrated", [False, True], ids=["card", "jetson"])
@pytest.mark.parametrize("version", ["10.3.0", "11.4.0", RTX_VERSION])
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
def test_memory_stays_the_same_over_10_000_inferences(machine, version):
    small = dataclasses.replace(SPEC, input_size=(32, 32), map_size=(4, 4))
    with machine.open(small, version=version) as backend:
        batch = np.zeros((1, 32, 32, 3), np.uint8)
        before = machine.gpu.left
        for _ in range(10_000):
            backend.infer(batch)
        assert machine.gpu.left == before


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
        ("Runtime", r"cannot start for .*\(CUDA initialization failure with error: 35; factory function returned null"),
        (
            "deserialize_cuda_engine",
            r"cannot load .* \(the plan is corrupt\); build it again: python -m export engine ",
        ),
        ("create_execution_context", r"cannot make a context for \S+plate\.plan \(Error Code 2: .* \(nobody knows\)\)"),
        ("set_tensor_address", r"cannot bind image of "),
        ("execute_async_v3", r"TensorRT 10\.3\.0 cannot run "),
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
        with pytest.raises(EngineError, match=r"cannot run .*nobody knows"):
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


def test_launches_are_recorded_once_for_each_slot(machine, caplog):
    with caplog.at_level(logging.INFO), machine.open() as backend:
        assert backend.device == "Fake RTX 3090, a CUDA graph"
        assert machine.gpu.left["graphs"] == 2
        run_two_in_hand(backend, batches(10))
    assert machine.gpu.launched_graphs == 12, "one each to try it"
    assert "plate.plan runs on tensorrt, Fake RTX 3090, a CUDA graph" in caplog.text


@pytest.mark.parametrize("name", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"])
@pytest.mark.parametrize("policy", POLICIES)
def test_capture_that_fails_leaves_plain_launches_and_a_warning(machine, name, policy, caplog):
    machine.gpu.fail_capture, machine.gpu.policy = name, policy
    with machine.open() as backend:
        assert backend.device == "Fake RTX 3090, plain launches"
        assert "graphs" not in machine.gpu.left
        run_two_in_hand(backend, batches(10))
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert f"{name} failed (operation failed due to a previous error)" in warning.getMessage()


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


def test_plan_that_tensorrt_rtx_finds_invalid_is_refused_with_its_reasons(machine):
    words = rf"TensorRT-RTX {RTX_VERSION} cannot load .* \(version mismatch; old cuda driver\)"
    with pytest.raises(EngineError, match=words):
        machine.open(version=RTX_VERSION, validity="INVALID", diagnostics=5)


def test_plan_that_tensorrt_rtx_finds_slow_is_run_and_warned_of(machine, caplog):
    with machine.open(version=RTX_VERSION, device="sm80+", validity="SUBOPTIMAL") as backend:
        run_two_in_hand(backend, batches(3))
    assert "runs slower than it could" in caplog.text
    assert "--flavour tensorrt-rtx --target sm86" in caplog.text


@pytest.mark.parametrize(
    ("built", "installed", "words"),
    [
        ({"version": "10.3.0"}, "10.13.0", "built with TensorRT 10.3.0 for sm86, this machine has TensorRT 10.13.0 on"),
        ({"version": "10.3.0", "device": "sm87"}, "10.3.0", "for sm87, this machine has TensorRT 10.3.0 on sm86"),
        ({"version": "10.3.0"}, RTX_VERSION, "TensorRT 10.3.0 for sm86, this machine has TensorRT-RTX 1.7.1"),
        ({"version": RTX_VERSION}, "10.3.0", "TensorRT-RTX 1.7.1.116 for sm86, this machine has TensorRT 10.3.0"),
    ],
    ids=["version", "gpu", "flavour", "other flavour"],
)
def test_plan_of_another_machine_is_refused_with_the_command_that_rebuilds_it(machine, built, installed, words):
    machine.install(version=installed)
    path = machine.plan(**built)
    for attempt in (lambda: open_engine(path), lambda: open_backend(path, spec=SPEC)):
        with pytest.raises(EngineError) as caught:
            attempt()
        assert words in str(caught.value)
        assert f"rebuild: python -m export engine {path}.onnx -o {path}" in str(caught.value)
    assert machine.gpu.calls == 0, "before CUDA was started"


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


class NotThere:
    """A finder that finds no pycuda, also where there is one."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pycuda":
            raise ModuleNotFoundError("No module named 'pycuda'", name="pycuda")


def test_machine_without_pycuda_says_how_to_get_it(machine):
    machine.install()
    for name in ("pycuda", "pycuda.driver"):
        machine.patch.delitem(sys.modules, name)
    machine.patch.setattr(sys, "meta_path", [NotThere(), *sys.meta_path])
    with pytest.raises(EngineError, match=r"found no pycuda.*pip install 'stlm-edge\[tensorrt\]'.*nvcc"):
        open_engine(machine.plan())


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


def test_plan_that_nobody_closes_is_closed_at_the_programs_end(machine):
    """pycuda would abort the program; handlers run in reverse order, so the last one sees what is left."""
    path = machine.plan()
    code = f"""
import atexit, pathlib, pytest
from tests.runtime.test_tensorrt import Machine, open_engine
machine = Machine(pathlib.Path({str(machine.folder)!r}), pytest.MonkeyPatch())
atexit.register(lambda: print("left", machine.gpu.left, machine.gpu.violations))
machine.install()
kept, _ = open_engine(pathlib.Path({str(path)!r}))
print("open", machine.gpu.left["contexts"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
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
