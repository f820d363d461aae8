"""ONNX Runtime on the processor: the reference that other backends are compared with."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import onnxruntime

from runtime.backends.base import Backend, BatchAnswer, Port
from stlm_edge.imaging import Input
from stlm_edge.spec import ModelSpec

_FATAL_ONLY = 4
"""What else it has to say comes as an exception."""
_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


class OnnxRuntimeBackend(Backend):
    """An ONNX file on the processor, by ONNX Runtime, in the precision of the file."""

    name = "onnxruntime"

    def __init__(self, path: Path, *, spec: ModelSpec, provider: str = "CPUExecutionProvider") -> None:
        """Raises `EngineError` if the file cannot be loaded or does not match `spec`."""
        super().__init__(path, spec=spec)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _FATAL_ONLY
        # Its own integer kernels give other answers than the graph says, by up to 0.5 in the map; TensorRT's do not ask
        # them. So what is quantised is rounded as it says, and multiplied in float32.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            self._session: Any = onnxruntime.InferenceSession(
                path, options, providers=[provider], enable_fallback=False
            )
        except Exception as error:  # ONNX Runtime's exceptions have no base class of their own
            raise self._failed("open", error) from error
        self._check_ports(
            inputs=list(map(_port, self._session.get_inputs())), outputs=list(map(_port, self._session.get_outputs()))
        )
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="onnxruntime")

    def _start(self, batch: Input) -> Callable[[], BatchAnswer]:
        return self._worker.submit(self._run, batch).result

    def _run(self, batch: Input) -> BatchAnswer:
        start_s = time.perf_counter()
        try:
            maps, scores = self._session.run(["anomaly_map", "score"], {"image": batch})
        except Exception as error:  # as above
            raise self._failed("run", error) from error
        return BatchAnswer(maps, scores, infer_ms=1e3 * (time.perf_counter() - start_s))

    def _release(self) -> None:
        self._worker.shutdown()
        self._session = None


def _port(port: Any) -> Port:
    shape = tuple(axis if isinstance(axis, int) else -1 for axis in port.shape)
    return Port(port.name, _DTYPES.get(port.type, port.type), shape)
