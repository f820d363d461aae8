"""The model of a repository as Triton's Python backend runs it: `model.onnx` beside this file, by ONNX Runtime.

Triton's own backends for ONNX and TensorRT come in its containers only; what they read is the same config.pbtxt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    """What the backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        graph = Path(__file__).with_name("model.onnx")
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self.names = [output.name for output in self.session.get_outputs()]

    def execute(self, requests: list[Any]) -> list[Any]:
        """One run for all requests that Triton has put together."""
        images = [triton.get_input_tensor_by_name(request, "image").as_numpy() for request in requests]
        answers = self.session.run(self.names, {"image": np.concatenate(images)})
        ends = np.cumsum([len(image) for image in images])[:-1]
        return [
            triton.InferenceResponse([triton.Tensor(name, part) for name, part in zip(self.names, parts, strict=True)])
            for parts in zip(*(np.split(answer, ends) for answer in answers), strict=True)
        ]
