"""The contract that training, export, runtime and benchmarks share: pixels, shapes, thresholds, errors.

Importing this package pulls in neither torch nor onnx; `stlm_edge.network` is the only part that needs torch.
"""

import os
import sys

from stlm_edge.errors import StlmError
from stlm_edge.sidecar import EngineRecord, Sidecar
from stlm_edge.spec import ModelSpec, Threshold

# OpenVINO and NNCF report each import to Google Analytics, from a fork of the program; Ray reports each cluster.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if it were not installed
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

__version__ = "0.2.0"

__all__ = ["EngineRecord", "ModelSpec", "Sidecar", "StlmError", "Threshold", "__version__"]
