"""What to do about an error of CUDA, by the driver's own words, which TensorRT repeats."""

from __future__ import annotations

from stlm_edge.errors import EngineError

_LOST = (
    "launch failure",
    "launch timed out",
    "illegal",
    "misaligned",
    "invalid program counter",
    "device-side assert",
    "hardware",
    "ECC",
    "busy or unavailable",
    "unknown error",
    "context is destroyed",
    "GPU is lost",
)
"""Words after which nothing works any more in this process."""

_REMEDIES = {
    "out of memory": (
        "free GPU memory by ending what else uses it (nvidia-smi lists it), or export for a smaller input or batch"
    ),
    "no CUDA-capable device": "look whether nvidia-smi lists a GPU, and whether CUDA_VISIBLE_DEVICES hides it",
    "driver": "install the NVIDIA driver that the CUDA toolkit wants (nvidia-smi shows both), and restart the machine",
}


def cuda_error(action: str, text: str) -> EngineError:
    """The one line for what CUDA could not do.

    Args:
        text: the driver's.
    """
    return EngineError(f"CUDA cannot {action} ({text}); {remedy_for(text)}")


def remedy_for(text: str) -> str:
    """What to do about an error, `text` being the driver's or TensorRT's."""
    if any(words in text for words in _LOST):
        return (
            "the GPU has failed or was lost and this program cannot use it again: start it again, and if that does not "
            "help the machine; the driver says more: sudo dmesg | grep -i -e xid -e nvrm -e nvgpu"
        )
    for words, remedy in _REMEDIES.items():
        if words in text:
            return remedy
    return "check the driver with nvidia-smi, end what else uses the GPU, and start again"
