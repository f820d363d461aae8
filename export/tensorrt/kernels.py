"""What a plan consists of: its kernels, and the file beside it that remembers them.

The compiler tells its kernels while it builds, and an engine can be asked for them again only where there is a GPU. So
they are written down at once, as `<plan>.kernels.json`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

from export.graph.parts import STAGES
from stlm_edge.errors import EngineError, SpecError, shown
from stlm_edge.files import sha256, write_text
from stlm_edge.records import MAY_LACK, Count, build, read_object
from stlm_edge.seal import sealed, unsealed
from stlm_edge.tensorrt import rebuild_command

SCHEMA_VERSION = 1

MOST_AXES, MOST_ELEMENTS = 8, 2**40
"""Of a tensor: TensorRT has no more axes, and no GPU as much memory."""

DTYPE_BYTES = {
    "fp32": 4,
    "fp16": 2,
    "bf16": 2,
    "fp8": 1,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
    "int32": 4,
    "int64": 8,
}


@dataclass(frozen=True)
class KernelTensor:
    """What a kernel reads or writes."""

    name: str
    shape: tuple[Count, ...]
    dtype: str

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True)
class Kernel:
    """One kernel of a plan.

    Attributes:
        kind: the compiler's word: `correlation` (a convolution), `gemm`, `runtime_fusion` (one of both with what was
            fused to it), `kgen` (generated code; attentions too).
        nodes: names of the ONNX nodes that it computes, or parts of them.
        stage: one of `STAGES`.
        stream: `plain`, `denoising`, `both` where one kernel serves both streams; None behind the encoders.
        flops: of the convolutions and matrix products in it, two for each multiplication with its addition. Each node
            counts in one kernel only.
        dtype: what it multiplies in, for the peak that bounds it.
        is_attention: products, softmax and all of an attention in one.
    """

    name: str
    kind: str
    inputs: tuple[KernelTensor, ...]
    constants: tuple[KernelTensor, ...]
    outputs: tuple[KernelTensor, ...]
    nodes: tuple[str, ...]
    stage: str
    stream: str | None
    flops: Count
    dtype: str
    is_attention: bool

    @property
    def tensors(self) -> tuple[KernelTensor, ...]:
        return self.inputs + self.constants + self.outputs

    @property
    def bytes_moved(self) -> int:
        """Inputs, constants and outputs, each once and in full, also where a gather needs a part only."""
        return sum(tensor.bytes for tensor in self.tensors)


@dataclass(frozen=True)
class KernelTable:
    """The kernels of a plan, in the order in which they run.

    Attributes:
        graph_flops: of all convolutions and matrix products in the graph that depend on the picture.
        unplaced: those of them that no kernel names, so that their FLOPs are missing from the kernels.
        unread: beginnings of the compiler's lines about kernels that are not among these, being in an unknown form.
    """

    kernels: tuple[Kernel, ...]
    graph_flops: Count
    unplaced: tuple[str, ...]
    unread: tuple[str, ...] = field(default=(), metadata=MAY_LACK)


def kernels_path(plan: Path) -> Path:
    return plan.with_name(plan.name + ".kernels.json")


def write_kernels(plan: Path, table: KernelTable) -> None:
    """Write down the kernels of `plan` beside it, atomically. Raises `OutputError`, or `EngineError` without a plan."""
    content = {"schema_version": SCHEMA_VERSION, "plan_sha256": _sha256(plan), "table": dataclasses.asdict(table)}
    write_text(kernels_path(plan), json.dumps(sealed(content)) + "\n")


def read_kernels(plan: Path) -> KernelTable:
    """The kernels of `plan`.

    Raises:
        EngineError: if there is no plan or no list of its kernels, or the list is damaged or another plan's.
    """
    found, path = _sha256(plan), kernels_path(plan)
    again = f"build the plan again: {rebuild_command(plan)}"
    try:
        content = unsealed(read_object(path, error=EngineError, remedy=again), path, error=EngineError, remedy=again)
    except FileNotFoundError:
        raise EngineError(
            f"{plan} has no {path.name} beside it, which lists its kernels; copy it from where the plan was built, or "
            + again
        ) from None
    if content.get("schema_version") != SCHEMA_VERSION:
        raise EngineError(
            f"{path} has schema version {shown(content.get('schema_version'))}, this toolkit reads {SCHEMA_VERSION}; "
            + again
        )
    if content.get("plan_sha256") != found:
        raise EngineError(
            f"{path} lists the kernels of a plan with SHA-256 {str(content.get('plan_sha256'))[:12]}…, {plan} has "
            f"{found[:12]}…; copy both from where the plan was built, or {again}"
        )
    try:
        table = build(KernelTable, content.get("table"), remedy=again)
    except SpecError as error:
        raise EngineError(f"{path} is damaged: {error}") from None
    tensors = [tensor for kernel in table.kernels for tensor in kernel.tensors]
    unknown = {tensor.dtype for tensor in tensors} | {kernel.dtype for kernel in table.kernels}
    strange = sorted((unknown - set(DTYPE_BYTES)) | ({kernel.stage for kernel in table.kernels} - set(STAGES)))
    if strange or not table.kernels:
        raise EngineError(f"{path} is damaged (no kernels, or of unknown types {shown(strange)}); {again}")
    if any(len(tensor.shape) > MOST_AXES or tensor.elements > MOST_ELEMENTS for tensor in tensors):
        raise EngineError(f"{path} is damaged (a tensor is larger than a GPU's memory); {again}")
    return table


def _sha256(plan: Path) -> str:
    if not plan.is_file():
        raise EngineError(f"{plan} is not a file, expected a plan; build it: stlm export CHECKPOINT -o {plan}")
    if plan.suffix != ".plan":
        raise EngineError(f"{plan} has the suffix {plan.suffix!r}, expected .plan; only plans have kernels to tell of")
    try:
        return sha256(plan)
    except OSError as error:
        raise EngineError(f"{plan} cannot be read ({error.strerror or error}); check its permissions") from error
