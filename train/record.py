"""What a run was made with: settings, data, versions, machine and git state, in its folder for whoever asks later."""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml

from stlm_edge import __version__
from stlm_edge.errors import CheckpointError, StlmError
from stlm_edge.files import write_text
from stlm_edge.records import MAY_LACK, build, read_object, read_settings
from stlm_edge.revision import git_state
from train.config import TrainConfig, from_dict

CONFIG_NAME = "config.yaml"
RECORD_NAME = "run.json"

PACKAGES = ("torch", "timm", "segment-anything", "numpy", "opencv-python")


@dataclass(frozen=True)
class Sources:
    """Where a run's pictures come from, as the command line has it."""

    data: Path
    category: str | None
    textures: Path | None


@dataclass(frozen=True)
class _Record:
    """What of `run.json` is read again."""

    data: str
    category: str | None
    textures: str | None
    id: str = field(default="", metadata=MAY_LACK)


def write_record(
    folder: Path, config: TrainConfig, sources: Sources, *, run_id: str, device: torch.device, processes: int
) -> None:
    """Write `config.yaml` and `run.json`. Raises `OutputError`."""
    write_text(folder / CONFIG_NAME, yaml.safe_dump(config.to_dict(), sort_keys=False))
    record: dict[str, Any] = {
        "data": str(sources.data.resolve()),
        "category": sources.category,
        "textures": None if sources.textures is None else str(sources.textures.resolve()),
        "id": run_id,
        "command": " ".join(sys.argv[1:]),
        "seed": config.seed,
        "processes": processes,
        "device": _device_name(device),
        "machine": platform.machine(),
        "versions": {"stlm-edge": __version__, "python": platform.python_version()}
        | {name: _version(name) for name in PACKAGES},
        "git": git_state(),
    }
    write_text(folder / RECORD_NAME, json.dumps(record, indent=2) + "\n")


def read_record(folder: Path) -> tuple[TrainConfig, Sources, str]:
    """The settings, the sources and the identity of a run. Raises `CheckpointError` if the folder holds none."""
    remedy = "expected a folder that 'python -m train fit' has begun"
    try:
        config = from_dict(read_settings(folder / CONFIG_NAME, error=CheckpointError, remedy=remedy))
        record = read_object(folder / RECORD_NAME, error=CheckpointError, remedy=remedy)
        known = {entry.name for entry in fields(_Record)}
        named = {name: value for name, value in record.items() if name in known}
        found = build(_Record, named, error=CheckpointError, remedy=remedy)
    except (FileNotFoundError, StlmError) as error:
        raise CheckpointError(f"{folder} is no run to resume ({error}); {remedy}") from None
    textures = None if found.textures is None else Path(found.textures)
    return config, Sources(Path(found.data), found.category, textures), found.id


def _version(package: str) -> str | None:
    """None where it came another way, as OpenCV does with JetPack."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
