"""ONNX Runtime on an NVIDIA GPU, for comparison only: the toolkit itself runs plans there."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnxruntime

from runtime.backends.base import Backend, BatchAnswer, Port
from stlm_edge.errors import EngineError
from stlm_edge.imaging import Input
from stlm_edge.spec import ModelSpec

_ERRORS_ONLY = 3
_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
_PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


class OnnxRuntimeCudaBackend(Backend):
    """An ONNX file on the first GPU. Pixels and answers are copied apart from the network, so that each has its time.

    It owns the session until `close`.
    """

    name = "onnxruntime-cuda"

    def __init__(self, path: Path, *, spec: ModelSpec, device: str = "cuda") -> None:
        """
        Args:
            device: `cpu` does the same where there is no GPU.
        Raises:
            EngineError: if ONNX Runtime is installed without its CUDA provider or that does not start, or the file
                cannot be loaded or does not match `spec`.
        """
        super().__init__(path, spec=spec)
        self._device = device
        provider = _PROVIDERS[device]
        require_provider(path, provider)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        try:
            self._session: Any = onnxruntime.InferenceSession(path, options, providers=[provider])
        except Exception as error:  # ONNX Runtime's exceptions have no base class of their own
            raise self._failed("open", error) from error
        if provider not in self._session.get_providers():
            raise EngineError(
                f"ONNX Runtime's {provider} does not start, so {path} would run on the processor; check that its CUDA "
                "and cuDNN are those that onnxruntime-gpu was built for"
            )
        self._check_ports(
            inputs=list(map(_port, self._session.get_inputs())), outputs=list(map(_port, self._session.get_outputs()))
        )

    @property
    def device(self) -> str:
        """`CUDA` or `CPU`."""
        return self._device.upper()

    def _start(self, batch: Input) -> Callable[[], BatchAnswer]:
        return lambda: self._run(batch)

    def _run(self, batch: Input) -> BatchAnswer:
        marks = [time.perf_counter()]
        try:
            binding = self._session.io_binding()
            binding.bind_ortvalue_input("image", onnxruntime.OrtValue.ortvalue_from_numpy(batch, self._device, 0))
            for name in ("anomaly_map", "score"):
                binding.bind_output(name, self._device)
            binding.synchronize_inputs()
            marks.append(time.perf_counter())
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            marks.append(time.perf_counter())
            maps, scores = binding.copy_outputs_to_cpu()
            marks.append(time.perf_counter())
        except Exception as error:  # as above
            raise self._failed("run", error) from error
        upload, infer, download = (1e3 * (end - start) for start, end in pairwise(marks))
        return BatchAnswer(maps, scores, infer_ms=infer, upload_ms=upload, download_ms=download)

    def _release(self) -> None:
        self._session = None


def require_provider(path: Path, provider: str = _PROVIDERS["cuda"]) -> None:
    """Raises `EngineError` unless ONNX Runtime was built with `provider`: left alone it would take another one."""
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise EngineError(
            f"found ONNX Runtime {onnxruntime.__version__} with {', '.join(available)}, expected {provider} for "
            f"{path}; pip install onnxruntime-gpu in its place"
        )


def _port(port: Any) -> Port:
    shape = tuple(axis if isinstance(axis, int) else -1 for axis in port.shape)
    return Port(port.name, _DTYPES.get(port.type, port.type), shape)
