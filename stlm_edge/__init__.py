"""The contract that training, export, runtime and benchmarks share: pixels, shapes, thresholds, errors.

Importing this package pulls in neither torch nor onnx; `stlm_edge.network` is the only part that needs torch.
"""

from stlm_edge.errors import StlmError
from stlm_edge.sidecar import EngineRecord, Sidecar
from stlm_edge.spec import ModelSpec, Threshold

__version__ = "0.2.0"

__all__ = ["EngineRecord", "ModelSpec", "Sidecar", "StlmError", "Threshold", "__version__"]
