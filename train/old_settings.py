"""What older versions called settings, and what they did where they did not say."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

from stlm_edge.errors import ConfigError

logger = logging.getLogger(__name__)

OLD_NAMES = {"exposure_jitter": "brightness"}
"""Settings that older runs, checkpoints and presets call otherwise, in the words of today."""

BEFORE = {"aggregation_start": "torch", "encoder_start": "identity"}
"""Settings that runs of older versions do not tell of, and what those did."""

OLD_KINDS = {"nsa": "hiding"}
"""Of pseudo anomalies, which older versions called otherwise, in the words of today; for files."""
TYPED_KINDS = {"nsa": "nsa-binary"}
"""What such a word means on the command line today: what the field calls so."""


def in_new_words(values: dict[str, Any]) -> dict[str, Any]:
    """The same settings by the names of today. Raises `ConfigError` if one has its old name and the new one."""
    twice = [f"{old} and {new}" for old, new in OLD_NAMES.items() if old in values and new in values]
    if twice:
        raise ConfigError(f"found both {twice[0]}, which are one setting; keep the second")
    renamed = {OLD_NAMES.get(name, name): value for name, value in values.items()}
    kinds = renamed.get("pseudo_anomalies")
    if isinstance(kinds, str):
        for kind in OLD_KINDS.keys() & set(kinds.split("+")):
            _tell_of_old_kind(kind)
        renamed["pseudo_anomalies"] = "+".join(OLD_KINDS.get(kind, kind) for kind in kinds.split("+"))
    return renamed


@cache
def _tell_of_old_kind(kind: str) -> None:
    """Once, since the settings of a run are read several times."""
    logger.info(
        "pseudo anomalies %s in a file are %s, as older versions called them; NSA as its authors define it is %s there",
        kind,
        OLD_KINDS[kind],
        TYPED_KINDS[kind],
    )
