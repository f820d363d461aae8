"""What the files of a finished run say of it, for the model card and the report."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from stlm_edge.errors import CheckpointError
from stlm_edge.names import escaped, unescaped
from stlm_edge.network.checkpoint import Checkpoint
from stlm_edge.records import MAY_LACK, build, read_object
from stlm_edge.seal import unsealed
from stlm_edge.spec import Size
from train.evaluation import DefectVerdicts
from train.record import RECORD_NAME, Pictures

EVALUATION_NAME = "evaluation.json"

FIGURES = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "aupro": "AUPRO",
}
"""Of `overall` and of each kind, shares from 0 to 1 → what people call them."""


@dataclass(frozen=True)
class Git:
    """The toolkit's own repository as it trained."""

    commit: str
    changed: bool


@dataclass(frozen=True)
class Record:
    """Of `run.json`, what people are told. What an older version did not write is None."""

    data: str | None = field(default=None, metadata=MAY_LACK)
    category: str | None = field(default=None, metadata=MAY_LACK)
    textures: str | None = field(default=None, metadata=MAY_LACK)
    teacher_weights_from: str | None = field(default=None, metadata=MAY_LACK)
    pictures: Pictures | None = field(default=None, metadata=MAY_LACK)
    date: str | None = field(default=None, metadata=MAY_LACK)
    command: str | None = field(default=None, metadata=MAY_LACK)
    seed: int | None = field(default=None, metadata=MAY_LACK)
    processes: int | None = field(default=None, metadata=MAY_LACK)
    device: str | None = field(default=None, metadata=MAY_LACK)
    machine: str | None = field(default=None, metadata=MAY_LACK)
    versions: dict[str, str | None] = field(default_factory=dict, metadata=MAY_LACK)
    git: Git | None = field(default=None, metadata=MAY_LACK)

    @property
    def data_name(self) -> str | None:
        """The last folder of the data's path, escaped: where it lies on somebody's machine is nobody's business."""
        return None if self.data is None else escaped(Path(unescaped(self.data)).name)


@dataclass(frozen=True)
class Measured:
    """Of `evaluation.json`, what people are told; figures without a value are None."""

    overall: dict[str, float | None]
    kinds: dict[str, dict[str, float | None]]
    threshold: float
    good: int
    defective: int
    missed: int
    false_alarms: int
    weights_sha256: str = field(default="", metadata=MAY_LACK)  # older versions did not say
    verdicts: dict[str, DefectVerdicts] = field(default_factory=dict, metadata=MAY_LACK)
    metric_size: Size | None = field(default=None, metadata=MAY_LACK)

    @property
    def figures(self) -> dict[str, float]:
        """Over all pictures, those that are defined."""
        return {name: value for name in FIGURES if (value := self.overall.get(name)) is not None}


@dataclass(frozen=True)
class RunTold:
    """A finished run.

    Attributes:
        measured: on the test pictures; None where nobody has measured these weights.
    """

    checkpoint: Checkpoint
    record: Record
    measured: Measured | None

    @property
    def verdicts_hold(self) -> bool:
        """Whether the verdicts that were counted are those of the threshold that the checkpoint has now."""
        threshold = self.checkpoint.spec.threshold
        return self.measured is not None and threshold is not None and self.measured.threshold == threshold.value


def is_run(folder: Path) -> bool:
    return (folder / RECORD_NAME).is_file()


def told_of(folder: Path, checkpoint: Checkpoint) -> RunTold:
    """What the folder of a run says beside its checkpoint. Raises `CheckpointError` for damaged files."""
    record = _built(Record, folder / RECORD_NAME, remedy="expected what 'stlm train' writes")
    measured = None
    if (folder / EVALUATION_NAME).is_file():
        measured = _built(Measured, folder / EVALUATION_NAME, remedy="delete it, and run stlm evaluate again")
        if measured.weights_sha256 != checkpoint.spec.weights_sha256:
            measured = None
    return RunTold(checkpoint, record, measured)


def _built(kind: Any, path: Path, *, remedy: str) -> Any:
    try:
        found = unsealed(
            read_object(path, error=CheckpointError, remedy=remedy), path, error=CheckpointError, remedy=remedy
        )
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} has no {path.name}, {remedy}") from None
    known = {entry.name for entry in fields(kind)}
    named = {name: value for name, value in found.items() if name in known}
    return build(kind, named, what=str(path), error=CheckpointError, remedy=remedy)
