"""The one line for an error of CUDA's driver."""

from __future__ import annotations

from stlm_edge.errors import EngineError
from stlm_edge.gpu_errors import CHECK_DRIVER, remedy_for


def cuda_error(action: str, text: str) -> EngineError:
    """The one line for what CUDA could not do.

    Args:
        text: the driver's.
    """
    return EngineError(f"CUDA cannot {action} ({text}); {remedy_for(text) or CHECK_DRIVER}")
