"""TensorRT plans on a GPU, by TensorRT 10.3 to 11 or TensorRT-RTX.

Two batches may be in hand, each in a slot of its own: while the GPU infers one, it is given the pixels of the other.
Uploads have a stream of their own; inference and the small answer follow one another in a second one. Within a stream
the GPU keeps the order, between them an event does, and the host waits for an event before it reads.
"""

from __future__ import annotations

import atexit
import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from runtime.backends.base import IN_FLIGHT, Backend, BatchAnswer
from runtime.backends.cuda import CudaContext
from runtime.backends.cuda_bindings import import_bindings
from runtime.backends.cuda_driver import DeviceMemory, Stream
from runtime.backends.cuda_graph import CudaGraph
from runtime.backends.plan import Plan, find_tensorrt
from stlm_edge.errors import EngineError
from stlm_edge.imaging import Input
from stlm_edge.sidecar import Sidecar
from stlm_edge.spec import ModelSpec

logger = logging.getLogger(__name__)

_PLAIN = "plain launches"
_LAST_WAIT_S = 5.0
"""For a thread that is still at work when the program ends."""


class TensorRtBackend(Backend):
    """A `.plan` on the first GPU. Owns the GPU's memory for it until `close`."""

    name = "tensorrt"

    def __init__(self, path: Path, *, spec: ModelSpec, sidecar: Sidecar) -> None:
        """
        Args:
            sidecar: of the plan, whose hash has been checked.
        Raises:
            EngineError: if the plan is not this machine's or does not match `spec`, or TensorRT, the driver or the GPU
                do not work.
        """
        super().__init__(path, spec=spec)
        product, trt = find_tensorrt(path, sidecar)
        self._plan: Plan | None = None
        self._idle: deque[_Slot] = deque()
        self._slots: list[_Slot] = []
        self._is_open = False
        self._launches = _PLAIN
        self._cuda = CudaContext()
        try:
            with self._cuda.current(f"open {path}"):
                self._plan = Plan(path, trt, product=product, record=sidecar.engine, cuda=self._cuda)
                self._open(self._plan)
        except BaseException:
            self.close()
            raise
        # What is freed while Python takes itself down is freed too late.
        atexit.register(self._close_at_exit)

    @property
    def device(self) -> str:
        """The GPU, and how its work is launched."""
        return f"{self._cuda.gpu}, {self._launches}"

    def _open(self, plan: Plan) -> None:
        inputs, outputs = plan.ports()
        self._check_ports(inputs=inputs, outputs=outputs)
        self._uploads, self._compute = self._cuda.stream(), self._cuda.stream()
        spec, unread = self._spec, None
        if spec.full_map:
            # Nobody asks for it, so one place to write it to does for all slots.
            height, width = spec.input_size
            unread = self._cuda.device_memory(spec.max_batch * height * width * np.dtype(np.float32).itemsize)
        self._slots = [_Slot(self._cuda, plan, spec=spec, unread=unread) for _ in range(IN_FLIGHT)]
        self._idle.extend(self._slots)
        # The first inferences load and compile what the next ones find there.
        self._try_each()
        self._launches = self._choose_launches(plan)
        self._try_each()
        plan.save_kernels()
        self._is_open = True

    def _try_each(self) -> None:
        blank = np.zeros((self._spec.max_batch, *self._spec.picture_size, 3), np.uint8)
        for slot in self._slots:
            slot.submit(blank, uploads=self._uploads, compute=self._compute)
            slot.answer(len(blank))

    def _choose_launches(self, plan: Plan) -> str:
        """Have the launches recorded where that is possible; in words what came of it."""
        if plan.captures_itself:
            return f"CUDA graphs of {plan.title}"
        if self._spec.max_batch > 1:
            logger.info("%s takes batches of any size, so its launches are not recorded as a CUDA graph", self._path)
            return _PLAIN
        try:
            bindings = import_bindings()
            if bindings is None:
                logger.info("found no cuda-bindings to record a CUDA graph with: pip install cuda-bindings")
                return _PLAIN
            for slot in self._slots:
                slot.capture(bindings, self._compute)
        except EngineError as error:
            for slot in self._slots:
                slot.forget_graph()
            logger.warning("no CUDA graph, so each kernel of %s is launched by itself: %s", self._path, str(error))
            return _PLAIN
        return "a CUDA graph"

    def _start(self, batch: Input) -> Callable[[], BatchAnswer]:
        slot = self._idle.popleft()
        try:
            with self._cuda.current(f"run {self._path}"):
                slot.submit(batch, uploads=self._uploads, compute=self._compute)
        except BaseException:
            self._idle.append(slot)  # both streams keep what was queued before whatever the slot is given next
            raise

        def finish() -> BatchAnswer:
            if self._closed:
                raise EngineError(f"{self._path} was closed before this answer was asked for; ask for it first")
            try:
                with self._cuda.current(f"run {self._path}"):
                    return slot.answer(len(batch))
            finally:
                self._idle.append(slot)

        return finish

    def _close_at_exit(self) -> None:
        # A daemon's thread may still be at work, or hang.
        if self._lock.acquire(timeout=_LAST_WAIT_S):
            try:
                self.close()
            finally:
                self._lock.release()

    def _release(self) -> None:
        atexit.unregister(self._close_at_exit)
        self._idle.clear()
        with self._cuda.closing():
            for slot in self._slots:
                slot.forget_graph()
            if self._plan is not None:
                if self._is_open:
                    self._plan.save_kernels()
                self._plan.close()


class _Slot:
    """One batch in hand: memory for it, an execution bound to that memory, and the moments of the batch's way."""

    def __init__(self, cuda: CudaContext, plan: Plan, *, spec: ModelSpec, unread: DeviceMemory | None) -> None:
        """
        Args:
            unread: where the plan writes the map at full size, if it does.
        """
        most = spec.max_batch
        self._image = cuda.tensor((most, *spec.picture_size, 3), np.uint8)
        self._maps = cuda.tensor((most, *spec.map_size), np.float32)
        self._scores = cuda.tensor((most,), np.float32)
        addresses = {"image": self._image.address, "anomaly_map": self._maps.address, "score": self._scores.address}
        if unread is not None:
            addresses["full_map"] = unread.address
        self._execution = plan.execution(addresses)
        self._is_dynamic = most > 1
        self._graph: CudaGraph | None = None
        self._count = 0
        self._copying_ms = 0.0
        self._uploading, self._uploaded = cuda.event(), cuda.event()
        self._started, self._inferred, self._done = cuda.event(), cuda.event(), cuda.event()

    def submit(self, batch: Input, *, uploads: Stream, compute: Stream) -> None:
        """Queue everything that a batch needs; the slot must be free. Raises `EngineError` and CUDA's errors."""
        count = len(batch)
        start_s = time.perf_counter()
        np.copyto(self._image.host[:count], batch)
        self._copying_ms = 1e3 * (time.perf_counter() - start_s)
        self._uploading.record(uploads)
        self._image.upload(uploads, count=count)
        self._uploaded.record(uploads)
        compute.wait_for(self._uploaded)
        self._started.record(compute)
        self._launch(count, compute)
        self._inferred.record(compute)
        self._maps.download(compute, count=count)
        self._scores.download(compute, count=count)
        self._done.record(compute)

    def answer(self, count: int) -> BatchAnswer:
        """Wait for the answer to what was submitted, and copy it. Raises CUDA's errors."""
        self._done.synchronize()
        return BatchAnswer(
            maps=self._maps.host[:count].copy(),
            scores=self._scores.host[:count].copy(),
            infer_ms=self._started.ms_until(self._inferred),
            upload_ms=self._copying_ms + self._uploading.ms_until(self._uploaded),
            download_ms=self._inferred.ms_until(self._done),
        )

    def capture(self, bindings: Any, stream: Stream) -> None:
        """Have the launches of one inference recorded. Raises `EngineError`."""
        self._graph = CudaGraph(bindings, stream, lambda: self._execution.enqueue(stream))

    def forget_graph(self) -> None:
        """Launch each kernel by itself again."""
        if self._graph is not None:
            self._graph.free()
            self._graph = None

    def _launch(self, count: int, stream: Stream) -> None:
        if self._graph is not None:
            self._graph.launch(stream)
            return
        if self._is_dynamic and count != self._count:
            self._execution.set_shape("image", (count, *self._image.host.shape[1:]))
            self._count = count
        self._execution.enqueue(stream)
