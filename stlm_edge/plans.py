"""TensorRT plans: whose they are, which GPUs they are for, what lies beside them and how they are built again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

TITLES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
"""What `EngineRecord.flavour` says of a plan → the product's name."""

PORTABLE = "sm80+"
"""What `EngineRecord.device` says of a plan for compute capability 8.0 and every later one."""


def kept_graph(plan: Path) -> Path:
    """The copy beside a plan of the ONNX file that it was built from."""
    return plan.with_name(plan.name + ".onnx")


def rebuild_command(engine: Path, *, flavour: str | None = None, targets: Sequence[str] = ()) -> str:
    """What a user types to get `engine` again.

    Args:
        flavour: for a plan, the flavour to build with if not the first that is found.
        targets: for a plan, the compute capabilities to build for, where the flavour takes any.
    """
    if engine.suffix != ".plan":
        command = "openvino" if engine.suffix == ".xml" else "onnx"
        return f"python -m export {command} CHECKPOINT -o {shlex.quote(str(engine))}"
    words = ["python", "-m", "export", "engine", str(kept_graph(engine)), "-o", str(engine)]
    if flavour is not None:
        words += ["--flavour", flavour]
    if targets:
        words += ["--target", ",".join(targets)]
    return shlex.join(words)


def is_for(device: str, compute_capability: str) -> bool:
    """Whether a plan for `device`, see `EngineRecord`, runs on a GPU.

    Args:
        compute_capability: such as `sm86`.
    """
    if device == PORTABLE:
        return int(compute_capability.removeprefix("sm")) >= int(PORTABLE.removeprefix("sm").removesuffix("+"))
    return compute_capability in device.split(",")
