"""Trained models in a folder, so that they are measured again without being trained again.

Each is one safetensors file: the network's state, and in its metadata what it was trained with and on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.alternatives.methods import BACKBONES, METHODS, Backbone, Method
from stlm_edge.errors import DataError, SpecError
from stlm_edge.files import replacing
from stlm_edge.records import build, parse
from stlm_edge.spec import Size

METADATA = "training"


@dataclass(frozen=True)
class Training:
    """How a kept model came to be.

    Attributes:
        coreset: share of all patches that PatchCore remembers; None for the others.
        pictures: a hash of the names and sizes of the training pictures, see `pictures_hash`.
        minutes, epochs, steps: see `benchmarks.alternatives.fitting.Fitted`.
        anomalib: its version.
    """

    method: str
    backbone: Backbone
    input_size: Size
    seed: int
    coreset: float | None
    pictures: str
    minutes: float
    epochs: int
    steps: int
    anomalib: str

    def differences(self, other: Training) -> list[str]:
        """In words, wherein another one was asked for; how long it was trained and by which version do not count."""
        return [
            f"{label} {getattr(self, name)} instead of {getattr(other, name)}"
            for name, label in _ASKED_FOR.items()
            if getattr(self, name) != getattr(other, name)
        ]


_ASKED_FOR = {
    "method": "method",
    "backbone": "--backbone",
    "input_size": "input size",
    "seed": "--seed",
    "coreset": "--coreset",
    "pictures": "training pictures",
}


def pictures_hash(paths: Sequence[Path]) -> str:
    """Of the names of pictures and of their folders, and of their sizes in bytes, whatever folder they lie below."""
    lines = sorted(f"{path.parent.name}/{path.name} {path.stat().st_size}" for path in paths)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def place(folder: Path, method: Method) -> Path:
    """Where a method's model lies in a folder of models."""
    return folder / f"{method.name}.safetensors"


def keep(path: Path, network: Any, training: Training) -> None:
    """Write a trained network, atomically. Raises `OutputError`."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in network.state_dict().items()}
    metadata = {METADATA: json.dumps(dataclasses.asdict(training))}
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:
            raise OSError(str(error)) from error


def training_of(path: Path) -> Training:
    """How a kept model came to be. Raises `DataError`, if it is none or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            training = build(Training, parse((file.metadata() or {}).get(METADATA, "")))
    except (SafetensorError, OSError, SpecError) as error:
        raise DataError(f"{path} is no model kept by benchmarks.alternatives ({error}); remove it") from None
    if training.method not in METHODS or training.backbone not in BACKBONES:
        raise DataError(
            f"{path} holds a {training.method!r} with {training.backbone!r}, expected one of "
            f"{', '.join(METHODS)} with one of {', '.join(BACKBONES)}; remove it"
        )
    return training


def find_kept(path: Path, wanted: Training) -> Training | None:
    """How the model at `path` came to be; None if there is none. Raises `DataError`, if it is not as wanted."""
    if not path.exists():
        return None
    found = training_of(path)
    if differences := found.differences(wanted):
        raise DataError(
            f"{path} was trained with {' and '.join(differences)}; give another folder with --models, or remove it"
        )
    return found


def load(path: Path) -> tuple[Any, Training]:
    """A kept method, as `building.build` has it, with the state that it was trained to.

    Raises:
        DataError: if the file is damaged or of another version of anomalib.
    """
    from safetensors.torch import load_file

    from benchmarks.alternatives.building import build as build_method

    training = training_of(path)
    module = build_method(
        METHODS[training.method],
        backbone=training.backbone,
        size=training.input_size,
        textures=path.parent,
        with_weights=False,
    )
    try:
        module.model.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise DataError(
            f"{path} does not fit this version of anomalib, it was trained with {training.anomalib} "
            f"({str(error).splitlines()[0]}); remove it"
        ) from None
    module.model.eval()
    return module, training
