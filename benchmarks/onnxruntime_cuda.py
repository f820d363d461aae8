"""ONNX Runtime on an NVIDIA GPU, for comparison only: the toolkit itself runs plans there."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import onnxruntime

from runtime.backends.base import BatchAnswer
from runtime.backends.onnxruntime import OnnxRuntimeBackend
from stlm_edge.errors import EngineError
from stlm_edge.imaging import Input
from stlm_edge.spec import ModelSpec

PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


class OnnxRuntimeCudaBackend(OnnxRuntimeBackend):
    """An ONNX file on the first GPU; pixels and answers are copied apart from the network, so each has its time."""

    name = "onnxruntime-cuda"

    def __init__(self, path: Path, *, spec: ModelSpec, on: str = "cuda") -> None:
        """
        Args:
            on: `cpu` does the same where there is no GPU.
        Raises:
            EngineError: if ONNX Runtime is installed without its CUDA provider or that does not start, or the file
                cannot be loaded or does not match `spec`.
        """
        self._on = on
        require_provider(path, PROVIDERS[on])
        super().__init__(path, spec=spec, provider=PROVIDERS[on])
        if PROVIDERS[on] not in self._session.get_providers():
            self.close()
            raise EngineError(
                f"ONNX Runtime's {PROVIDERS[on]} does not start, so {path} would run on the processor; check that its "
                "CUDA and cuDNN are those that onnxruntime-gpu was built for"
            )

    @property
    def device(self) -> str:
        """`CUDA` or `CPU`."""
        return self._on.upper()

    def _run(self, batch: Input) -> BatchAnswer:
        marks = [time.perf_counter()]
        try:
            binding = self._session.io_binding()
            binding.bind_ortvalue_input("image", onnxruntime.OrtValue.ortvalue_from_numpy(batch, self._on, 0))
            for name in ("anomaly_map", "score"):
                binding.bind_output(name, self._on)
            binding.synchronize_inputs()
            marks.append(time.perf_counter())
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            marks.append(time.perf_counter())
            maps, scores = binding.copy_outputs_to_cpu()
            marks.append(time.perf_counter())
        except Exception as error:  # ONNX Runtime's exceptions have no base class of their own
            raise self._failed("run", error) from error
        upload, infer, download = (1e3 * (end - start) for start, end in pairwise(marks))
        return BatchAnswer(maps, scores, infer_ms=infer, upload_ms=upload, download_ms=download)


def require_provider(path: Path, provider: str = PROVIDERS["cuda"]) -> None:
    """Raises `EngineError` unless ONNX Runtime was built with `provider`: left alone it would take another one."""
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise EngineError(
            f"found ONNX Runtime {onnxruntime.__version__} with {', '.join(available)}, expected {provider} for "
            f"{path}; pip install onnxruntime-gpu in its place"
        )
