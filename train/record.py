"""What a run was made with: settings, data, versions, machine and git state, in its folder for whoever asks later."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml

from stlm_edge import __version__
from stlm_edge.datasets import Parts, Sample
from stlm_edge.errors import CheckpointError, StlmError
from stlm_edge.files import write_text
from stlm_edge.names import escaped, printable, unescaped
from stlm_edge.network.weights import PUBLISHED as FETCHED
from stlm_edge.records import MAY_LACK, build, read_object, read_settings
from stlm_edge.revision import git_state
from train.config import PUBLISHED, RANDOM, TrainConfig, from_record, from_yaml

CONFIG_NAME = "config.yaml"
RECORD_NAME = "run.json"

PACKAGES = ("torch", "timm", "segment-anything", "numpy", "opencv-python")


@dataclass(frozen=True)
class Sources:
    """Where a run's pictures and weights come from, as the command line has it.

    Attributes:
        weights: setting → its file, by a path that is the same from every folder; for settings that name a file.
    """

    data: Path
    category: str | None
    textures: Path | None
    weights: Mapping[str, Path] = field(default_factory=dict)

    def located(self, config: TrainConfig) -> TrainConfig:
        """The same settings, with the files of weights by these paths."""
        return replace(
            config,
            initial_weights=str(self.weights.get("initial_weights", config.initial_weights)),
            teacher_weights=str(self.weights.get("teacher_weights", config.teacher_weights)),
        )

    def moved(self, *, data: Path | None, textures: Path | None, teacher_weights: Path | None) -> Sources:
        """The same, some of them in a new place; None: where they were."""
        weights = {} if teacher_weights is None else {"teacher_weights": teacher_weights.absolute()}
        return Sources(data or self.data, self.category, textures or self.textures, {**self.weights, **weights})


def weights_files(config: TrainConfig) -> dict[str, Path]:
    """The files of weights that settings name, see `Sources`."""
    named = {name: str(getattr(config, name)) for name in ("initial_weights", "teacher_weights")}
    return {name: Path(path).absolute() for name, path in named.items() if path not in (RANDOM, PUBLISHED, *FETCHED)}


@dataclass(frozen=True)
class Pictures:
    """What tells the good pictures of a data set from others, wherever it lies.

    Attributes:
        sha256: over their names and sizes, in their order.
    """

    count: int
    sha256: str

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Pictures:
        """Raises `OSError` for one that is not there."""
        digest = hashlib.sha256()
        for sample in samples:
            digest.update(os.fsencode(sample.path.name) + f"\0{sample.path.stat().st_size}\0".encode())
        return cls(len(samples), digest.hexdigest())


@dataclass(frozen=True)
class _Record:
    """What of `run.json` is read again."""

    data: str
    category: str | None
    textures: str | None
    id: str = field(default="", metadata=MAY_LACK)
    weights: dict[str, str] = field(default_factory=dict, metadata=MAY_LACK)
    teacher_weights_from: str | None = field(default=None, metadata=MAY_LACK)
    pictures: Pictures | None = field(default=None, metadata=MAY_LACK)
    parts: dict[str, str] | None = field(default=None, metadata=MAY_LACK)


@dataclass(frozen=True)
class Begun:
    """A run as its folder tells of it.

    Attributes:
        pictures, parts: None in a run that was begun before they were told.
        taught_by: see `write_record`.
    """

    config: TrainConfig
    sources: Sources
    id: str
    pictures: Pictures | None
    parts: Parts | None
    taught_by: str | None


def write_record(
    folder: Path,
    config: TrainConfig,
    sources: Sources,
    *,
    pictures: Pictures,
    parts: Parts,
    taught_by: str | None,
    run_id: str,
    device: torch.device,
    processes: int,
) -> None:
    """Write `config.yaml` and `run.json`.

    Args:
        taught_by: the origin of the teacher's weights, see `Teacher`; None without a teacher.
    Raises:
        OutputError: if the folder cannot be written to.
    """
    write_text(folder / CONFIG_NAME, yaml.safe_dump(config.to_dict(), sort_keys=False))
    record: dict[str, Any] = {
        "data": escaped(str(sources.data.resolve())),
        "category": None if sources.category is None else escaped(sources.category),
        "textures": None if sources.textures is None else escaped(str(sources.textures.resolve())),
        "weights": {name: escaped(str(path)) for name, path in sources.weights.items()},
        "teacher_weights_from": None if taught_by is None else escaped(taught_by),
        "pictures": asdict(pictures),
        "parts": parts.to_record(),
        "id": run_id,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": printable(" ".join(sys.argv[1:])),
        "seed": config.seed,
        "processes": processes,
        "device": _device_name(device),
        "machine": platform.machine(),
        "versions": {"stlm-edge": __version__, "python": platform.python_version()}
        | {name: _version(name) for name in PACKAGES},
        "git": git_state(),
    }
    write_text(folder / RECORD_NAME, json.dumps(record, indent=2) + "\n")


def read_record(folder: Path) -> Begun:
    """The run in a folder. Raises `CheckpointError` if it holds none."""
    remedy = "expected a folder that 'stlm train' has begun"
    try:
        config = from_record(from_yaml(read_settings(folder / CONFIG_NAME, error=CheckpointError, remedy=remedy)))
        record = read_object(folder / RECORD_NAME, error=CheckpointError, remedy=remedy)
        known = {entry.name for entry in fields(_Record)}
        named = {name: value for name, value in record.items() if name in known}
        found = build(_Record, named, error=CheckpointError, remedy=remedy)
        parts = None if found.parts is None else Parts.from_record(found.parts)
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} is no run, found no {Path(error.filename).name} in it, {remedy}") from None
    except StlmError as error:
        raise CheckpointError(f"{folder} is no run: {error}") from None
    textures = None if found.textures is None else Path(unescaped(found.textures))
    category = None if found.category is None else unescaped(found.category)
    # Earlier versions told of no weights; what is relative then is so to the folder that one resumes from.
    weights = (
        {name: Path(unescaped(path)) for name, path in found.weights.items()}
        if "weights" in named
        else weights_files(config)
    )
    taught_by = None if found.teacher_weights_from is None else unescaped(found.teacher_weights_from)
    sources = Sources(Path(unescaped(found.data)), category, textures, weights)
    return Begun(config, sources, found.id, found.pictures, parts, taught_by)


def _version(package: str) -> str | None:
    """None where it came another way, as OpenCV does with JetPack."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
