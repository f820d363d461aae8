"""What the gate has said of an engine, told to whoever runs it."""

from __future__ import annotations

import logging
from pathlib import Path

from stlm_edge.sidecar import Sidecar

logger = logging.getLogger(__name__)


def warn_unless_verified(engine: Path, sidecar: Sidecar) -> None:
    """Log a warning if nobody has compared an engine with its network, or it answered differently.

    That the engine itself was not executed for that is an information.
    """
    gate = sidecar.engine.gate
    verify = f"stlm verify {engine} --reference CHECKPOINT --data DIR"
    if gate is None:
        logger.warning(
            "UNVERIFIED ENGINE: nobody has compared %s with the network that it came from; its answers may differ: %s",
            engine,
            verify,
        )
    elif not gate.verified:
        logger.warning(
            "REFUSED ENGINE: %s does not answer like the network that it came from (%s); do not trust its "
            "verdicts, export it again or see: %s",
            engine,
            "; ".join(gate.objections) or "no reason is recorded",
            verify,
        )
    elif not gate.executed:
        logger.info(
            "%s was verified by its graph alone, where it could not be executed; where it can be: %s", engine, verify
        )
