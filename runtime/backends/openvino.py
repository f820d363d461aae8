"""OpenVINO, the faster of the two on Intel and ARM processors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino

from runtime.backends.base import Backend, Maps, Port, Scores
from stlm_edge.imaging import Input
from stlm_edge.spec import ModelSpec

# On processors with AMX, OpenVINO picks bfloat16 by itself, and scores move by up to 0.013.
_SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}


class OpenVinoBackend(Backend):
    """An ONNX file on the processor, by OpenVINO, in 32-bit floating point."""

    name = "openvino"

    def __init__(self, path: Path, *, spec: ModelSpec) -> None:
        """Raises `EngineError` if the file cannot be compiled or does not match `spec`."""
        super().__init__(path, spec=spec)
        try:
            model = openvino.Core().read_model(path)
            self._check_ports(inputs=list(map(_port, model.inputs)), outputs=list(map(_port, model.outputs)))
            self._request: Any = openvino.Core().compile_model(model, "CPU", _SETTINGS).create_infer_request()
        except RuntimeError as error:
            raise self._failed("open", error) from error

    def _infer(self, batch: Input) -> tuple[Maps, Scores]:
        try:
            self._request.infer({"image": batch})
        except RuntimeError as error:
            raise self._failed("run", error) from error
        # The request reuses its memory at the next call; the caller gets copies.
        maps, scores = (np.array(self._request.get_tensor(name).data) for name in ("anomaly_map", "score"))
        return maps, scores

    def _release(self) -> None:
        self._request = None


def _port(port: Any) -> Port:
    shape = tuple(axis.get_length() if axis.is_static else -1 for axis in port.partial_shape)
    return Port(port.any_name, str(np.dtype(port.element_type.to_dtype())), shape)
