"""OpenVINO, the faster of the two on Intel and ARM processors."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from openvino.frontend import FrontEndManager

from runtime.backends.base import IN_FLIGHT, Backend, BatchAnswer, Port
from stlm_edge.errors import EngineError
from stlm_edge.imaging import Input
from stlm_edge.signal_stack import kept_signal_stack
from stlm_edge.spec import ModelSpec

_DEVICE = "CPU"
_BF16 = "bf16"


class OpenVinoBackend(Backend):
    """An ONNX file or one of OpenVINO's own on the processor.

    It calculates in 32-bit floating point, in bfloat16 if the engine's record says so, and in 8-bit integers where the
    file does.
    """

    name = "openvino"

    def __init__(self, path: Path, *, spec: ModelSpec, precision: str = "fp32", side_by_side: bool = False) -> None:
        """
        Args:
            precision: as in the engine's record.
            side_by_side: two batches are inferred at the same time, each by half of the cores.
        Raises:
            EngineError: if the file cannot be compiled or does not match `spec`, or the processor lacks bfloat16.
        """
        super().__init__(path, spec=spec)
        core = openvino.Core()
        if precision == _BF16:
            require_bf16(path)
        # Left alone, OpenVINO picks bfloat16 by itself on some processors, and scores move.
        hint = _BF16 if precision == _BF16 else "f32"
        settings: dict[str, object] = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
        if side_by_side:
            settings |= {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": IN_FLIGHT}
        try:
            model = _read(core, path)
            self._check_ports(inputs=list(map(_port, model.inputs)), outputs=list(map(_port, model.outputs)))
            with kept_signal_stack():
                compiled = core.compile_model(model, _DEVICE, settings)
            # One runs while the other one's answer is still waited for.
            self._idle: deque[Any] = deque(compiled.create_infer_request() for _ in range(IN_FLIGHT))
        except EngineError:
            raise
        except Exception as error:  # of a damaged file, whichever C++ exception it comes upon
            raise self._failed("open", error) from error
        self._takes_turns = not side_by_side
        self._ended_s = 0.0

    def _start(self, batch: Input) -> Callable[[], BatchAnswer]:
        request = self._idle.popleft()
        started_s = time.perf_counter()
        try:
            request.start_async({"image": batch}, share_inputs=True)
        except RuntimeError as error:
            self._idle.append(request)
            raise self._failed("run", error) from error

        def finish() -> BatchAnswer:
            try:
                request.wait()
                # The request reuses its memory at the next call; the caller gets copies.
                maps, scores = (np.array(request.get_tensor(name).data) for name in ("anomaly_map", "score"))
                # Its latency counts from the start of the request; where two take turns, the time in which it waited
                # for the other is taken off. By two clocks, so one that ran in no time may seem to have ended before
                # it began.
                begun_s = max(started_s, self._ended_s if self._takes_turns else 0.0)
                self._ended_s = started_s + request.latency / 1e3
                return BatchAnswer(maps, scores, infer_ms=max(0.0, 1e3 * (self._ended_s - begun_s)))
            except RuntimeError as error:
                raise self._failed("run", error) from error
            finally:
                self._idle.append(request)

        return finish

    def _release(self) -> None:
        for request in self._idle:
            request.cancel()
        self._idle.clear()


def _read(core: Any, path: Path) -> Any:
    """The model in a file. Left to find out what it is, OpenVINO logs of a damaged one which formats it is not."""
    if path.suffix != ".onnx":
        return core.read_model(path)
    front_end = FrontEndManager().load_by_framework("onnx")
    return openvino.Model(front_end.convert(front_end.load(str(path))))


def has_bf16() -> bool:
    """Whether this processor multiplies in bfloat16."""
    return "BF16" in openvino.Core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")


def require_bf16(engine: Path) -> None:
    """Raises `EngineError` unless this processor multiplies in bfloat16: elsewhere OpenVINO would do something else."""
    if not has_bf16():
        raise EngineError(
            f"{engine} is to run in {_BF16}, which this processor does not have; export it for this machine, with "
            "--precision auto here or --precision fp32 elsewhere"
        )


def _port(port: Any) -> Port:
    shape = tuple(axis.get_length() if axis.is_static else -1 for axis in port.partial_shape)
    return Port(port.any_name, str(np.dtype(port.element_type.to_dtype())), shape)
