"""Whether this machine can run a certain engine: its files, its record, and one picture through it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runtime.backends import check_engine_file, vouched
from runtime.checkup.finding import Finding
from runtime.checkup.probe import ask
from runtime.plan_check import Machine, check_plan, on_another_gpu
from stlm_edge.errors import StlmError
from stlm_edge.tensorrt import rebuild_command

SUBJECT = "engine"

_TRIAL_S = 600.0
"""The first start of a plan may compile kernels."""


def find_engine(path: Path, machines: Sequence[Machine]) -> Finding:
    """The engine's finding.

    Args:
        machines: what there is for plans, one for each TensorRT that is installed.
    """
    warning = None
    try:
        check_engine_file(path)
        sidecar = vouched(path)
        sidecar.spec.require_threshold()
        if path.suffix == ".plan" and machines:
            same = [machine for machine in machines if machine.product == sidecar.engine.product]
            machine = (same or machines)[0]
            check_plan(path, sidecar, machine)
            warning = on_another_gpu(path, sidecar, machine)
    except StlmError as error:
        return _refused(str(error))
    answer = ask(__name__, f"module.try_engine({str(path)!r})", timeout_s=_TRIAL_S)
    if answer.failure is not None:
        remedy = f"see the lines above, or make it again here: {rebuild_command(path)}"
        return Finding(SUBJECT, "broken", f"{path} {answer.failure}", remedy)
    done, text = answer.value
    if not done:
        return _refused(text)
    return Finding(SUBJECT, "ok", f"{path} {text}" + (f"; {warning}" if warning else ""))


def try_engine(path: str) -> tuple[bool, str]:
    """Open an engine and let it look at one grey picture: whether that went well, and how or why not."""
    import numpy as np

    from runtime.backends import open_engine

    try:
        backend, sidecar = open_engine(Path(path))
        with backend:
            size = sidecar.spec.picture_size
            answer = backend.submit(np.full((1, *size, 3), 128, np.uint8)).result()
    except StlmError as error:
        return False, str(error)
    return True, f"runs on {backend.name}, {backend.device}: {size[0]} x {size[1]} in {answer.infer_ms:.1f} ms at first"


def _refused(message: str) -> Finding:
    found, _, remedy = " ".join(message.split()).rpartition("; ")
    return Finding(SUBJECT, "broken", found, remedy) if found else Finding(SUBJECT, "broken", remedy)
