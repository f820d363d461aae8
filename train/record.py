"""What a run was made with: settings, data, versions, machine and git state, in its folder for whoever asks later."""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml

from stlm_edge import __version__
from stlm_edge.errors import CheckpointError
from stlm_edge.files import write_text
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


def write_record(folder: Path, config: TrainConfig, sources: Sources, *, device: torch.device, processes: int) -> None:
    """Write `config.yaml` and `run.json`. Raises `OutputError`."""
    write_text(folder / CONFIG_NAME, yaml.safe_dump(config.to_dict(), sort_keys=False))
    record: dict[str, Any] = {
        "data": str(sources.data.resolve()),
        "category": sources.category,
        "textures": None if sources.textures is None else str(sources.textures.resolve()),
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


def read_record(folder: Path) -> tuple[TrainConfig, Sources]:
    """The settings and sources of a run. Raises `CheckpointError` if the folder holds none."""
    try:
        values = yaml.safe_load((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        record = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))
        textures = record["textures"]
        sources = Sources(Path(record["data"]), record["category"], None if textures is None else Path(textures))
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{folder} is no run to resume ({reason}); expected a folder that 'python -m train fit' has begun"
        ) from None
    return from_dict(values), sources


def _version(package: str) -> str | None:
    """None where it came another way, as OpenCV does with JetPack."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
