"""What stands in `<engine>.json`: the specification of the model, and the record of how the engine came to be.

The file carries its own SHA-256: a threshold on a factory floor is changed by a command that leaves a trace, not by an
editor.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import mmap
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from stlm_edge.errors import EngineError, SpecError, shown
from stlm_edge.files import sha256, write_text
from stlm_edge.records import MAY_LACK, Count, build, formerly, read_object
from stlm_edge.seal import SEAL, sealed, unsealed
from stlm_edge.spec import ModelSpec
from stlm_edge.tensorrt import rebuild_command


@dataclass(frozen=True)
class Limits:
    """How far an engine may drift from the network in PyTorch; maps and scores are on a scale of 0 … 1.

    Attributes:
        max_map_error, p99_map_error: of a map's pixels, the largest and the 99th percentile.
        min_map_correlation: Pearson's, over all pixels of all maps.
        max_score_error: of the scores.
        min_rank_correlation: Spearman's, of the scores.
        max_metric_drift: of image AUROC, pixel AUROC and AUPRO, in points of 100; only where there are labels. The
            image AUROC may always move by what one pair of pictures is worth.
    """

    max_map_error: float
    p99_map_error: float
    min_map_correlation: float
    max_score_error: float
    min_rank_correlation: float
    max_metric_drift: float


@dataclass(frozen=True)
class Drift:
    """How far the answers of one backend were from the network's, see `Limits`.

    Attributes:
        backend: what ran the graph, and in which arithmetic where that is not the engine's own.
        images: how many pictures it was measured on.
        p99_map_error: at most 1 % above the true one.
        map_correlation, score_rank_correlation: None where the network's own maps are flat or its scores equal.
        image_auroc_drift, pixel_auroc_drift, aupro_drift: backend minus network in points of 100; None without labels.
    """

    backend: str
    images: Count
    max_map_error: float
    p99_map_error: float
    map_correlation: float | None
    max_score_error: float
    score_rank_correlation: float | None
    image_auroc_drift: float | None = None
    pixel_auroc_drift: float | None = None
    aupro_drift: float | None = None


@dataclass(frozen=True)
class Gate:
    """What the comparison with the network said of an engine.

    Attributes:
        verified: every drift is within the limits.
        executed: the engine itself was run. Where there is no GPU its graph was, in the same precision, on CPU
            backends, and this is False.
        reference: what the answers were compared with: `pytorch`, or `onnx-fp32`.
        drifts: of each backend that ran the graph.
        objections: why it is not verified, one sentence each.
        resize: where the graph resizes camera frames itself, how far the network's own answers move by that; the
            drifts of the backends are then without it.
    """

    verified: bool = field(metadata=formerly(name="blessed"))
    executed: bool
    reference: str
    limits: Limits
    drifts: tuple[Drift, ...]
    objections: tuple[str, ...] = field(default=(), metadata=MAY_LACK)
    resize: Drift | None = field(default=None, metadata=MAY_LACK)


@dataclass(frozen=True)
class Calibration:
    """The good pictures that activation ranges were measured on.

    Attributes:
        images: how many.
        seed: of their choice.
        sha256: of the pictures' SHA-256 values, in order.
    """

    images: Count
    seed: int
    sha256: str


@dataclass(frozen=True)
class BuildMachine:
    """Where TensorRT built a plan, which is what it chose the plan's kernels for.

    Attributes:
        architecture: of the processor, `x86_64` or `aarch64`; plans do not go from one to the other.
        gpu: its name, as the driver says it.
        multiprocessors: how many of the GPU's were switched on. All modules with an Orin have one name and one compute
            capability, and a Jetson's power mode switches some off.
    """

    architecture: str
    gpu: str
    multiprocessors: Count


@dataclass(frozen=True)
class EngineRecord:
    """What an engine was built by and for, and how far it was seen to drift.

    Attributes:
        product: `onnx`, `openvino`, `tensorrt` or `tensorrt-rtx`.
        version: of the compiler or exporter.
        device: `any` for ONNX, `cpu`, or the compute capabilities a plan was built for (`sm86,sm89`).
        precision: `fp32`, `fp16`, `bf16` or `int8`, as it was asked for. OpenVINO's `bf16` stands in no file: it is how
            the runtime has the processor calculate.
        engine_sha256: of the engine, as `engine_sha256` computes it.
        onnx_sha256: of the ONNX file it was built from; None for that file itself.
        precision_by_class: layer class → the precision it has in fact.
        calibration: None where no pictures were needed.
        gate: None where no comparison has been made yet.
        built_on: where TensorRT built a plan; None for other products, and for plans from before this was recorded.
        portability: on which other GPUs a plan of TensorRT runs too, and what that costs; None where on none for
            certain.
    """

    product: str = field(metadata=formerly(name="flavour"))
    version: str
    device: str
    precision: str
    engine_sha256: str
    onnx_sha256: str | None = None
    precision_by_class: dict[str, str] = field(default_factory=dict)
    calibration: Calibration | None = None
    gate: Gate | None = None
    built_on: BuildMachine | None = field(default=None, metadata=MAY_LACK)
    portability: str | None = field(default=None, metadata=MAY_LACK)


@dataclass(frozen=True)
class Sidecar:
    """What stands in `<engine>.json`: the specification of the model and the record of the engine."""

    spec: ModelSpec
    engine: EngineRecord

    @staticmethod
    def path_for(engine: Path) -> Path:
        return engine.with_name(engine.name + ".json")

    def write(self, engine: Path) -> None:
        """Write the sidecar of `engine`, atomically."""
        write_text(self.path_for(engine), json.dumps(sealed(dataclasses.asdict(self)), indent=2) + "\n")

    @classmethod
    def read(cls, engine: Path) -> Sidecar:
        """Read the sidecar of `engine`; raises `SpecError` if it is missing, damaged or was edited by hand."""
        path = cls.path_for(engine)
        again = f"export the engine again: {rebuild_command(engine)}"
        try:
            data = read_object(path, remedy=again)
        except FileNotFoundError:
            raise SpecError(
                f"{engine} has no {path.name} beside it, which holds its threshold and input size; copy it from "
                f"where the engine was built, or make it again: {rebuild_command(engine)}"
            ) from None
        if set(data) != {"spec", "engine", SEAL}:
            raise SpecError(f"{path} has the keys {shown(sorted(data))}, expected engine, spec and {SEAL}; {again}")
        try:
            sidecar = cls(
                spec=build(ModelSpec, data["spec"], remedy=again),
                engine=build(EngineRecord, data["engine"], remedy=again),
            )
        except SpecError as error:
            raise SpecError(f"{path}: {error}") from None
        unsealed(
            data, path, error=SpecError, remedy="copy it again, change a threshold by 'stlm threshold' or --threshold"
        )
        return sidecar


def rewrite(engine: Path, change: Callable[[Sidecar], Sidecar], *, known: Sidecar) -> None:
    """Change what the sidecar of an engine says now, which need not be what it said when a long work began.

    Args:
        known: the sidecar as it was then.
    Raises:
        EngineError: if it belongs to another engine by now.
        SpecError: if it cannot be read.
        OutputError: if it cannot be written; it is then as it was.
    """
    current = Sidecar.read(engine)
    if current.engine.engine_sha256 != known.engine.engine_sha256:
        raise EngineError(f"{engine} was replaced in the meantime, so nothing is changed; run the command again")
    change(current).write(engine)


def weights_of(engine: Path) -> Path | None:
    """The second file of an engine in OpenVINO's format, its weights; None for engines of one file."""
    return engine.with_suffix(".bin") if engine.suffix == ".xml" else None


_LOCATION = re.compile(rb"(?:\n|\x8a\x80*\x00)(?:\x08|\x88\x80*\x00)location")
"""Field 1 of protocol buffers with that text: its tag and length may be written with more bytes than they need."""


def require_whole(engine: Path) -> None:
    """Raises `EngineError` if an ONNX file keeps weights in other files, for which its hash does not vouch.

    A tensor that lies elsewhere says where: it has an entry whose first field, the key, is `location`.
    """
    with engine.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = _LOCATION.search(content)
    if found is not None:
        raise EngineError(
            f"{engine} keeps weights in other files (ONNX external data), expected all in one, since its hash vouches "
            f"for that one alone; save it with all weights inside, or export it again: {rebuild_command(engine)}"
        )


def engine_sha256(engine: Path) -> str:
    """SHA-256 of an engine; where it consists of two files, of their hexadecimal SHA-256 values one after the other.

    Raises `OSError`.
    """
    weights = weights_of(engine)
    if weights is None:
        return sha256(engine)
    return hashlib.sha256((sha256(engine) + sha256(weights)).encode()).hexdigest()


def require_verified(engine: Path, sidecar: Sidecar, *, allow_unverified: bool) -> None:
    """Raises `EngineError` unless the gate has verified an engine, or that is not asked for."""
    gate = sidecar.engine.gate
    if allow_unverified or (gate is not None and gate.verified):
        return
    found = "has not been compared with the network" if gate is None else "drifts too far from the network"
    raise EngineError(f"{engine} {found}, expected a verified engine; run stlm verify, or insist: --allow-unverified")
