"""The plan report: what a plan's kernels move and compute, and how fast it can be at best. It needs no GPU."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from export.graph.parts import STAGES
from export.tensorrt.kernels import Kernel, KernelTable
from stlm_edge.tensorrt import GpuPeaks

DEAREST = 10
_SHOWN = 3

CAVEAT = (
    "Floors are computed, not measured: for each kernel the larger of FLOPs / peak and bytes / bandwidth, summed as if "
    "they ran one after another. A real run takes longer, unless caches keep what a kernel reads."
)


@dataclass(frozen=True)
class KernelSums:
    """Sums over some kernels of a plan.

    Attributes:
        fused_attentions: kernels that are a whole attention.
        moved_mb: inputs, constants and outputs, in 10⁶ bytes.
        floor_ms: GPU → milliseconds that these kernels take at least, launches not counted.
    """

    name: str
    kernels: int
    fused_attentions: int
    moved_mb: float
    gflop: float
    floor_ms: dict[str, float]


@dataclass(frozen=True)
class DearKernel:
    """One of the kernels that cost most on the first GPU."""

    kernel: str
    stage: str
    moved_mb: float
    gflop: float
    floor_ms: float
    bound_by: str


@dataclass(frozen=True)
class PlanReport:
    """What `python -m export report` tells.

    Attributes:
        streams: likewise, by stream of the encoders.
        launches_ms: what the launches add, at `--launch-us` each.
        dtype_mb, dtype_gflop: bytes moved and products, by data type.
        unplaced: products of the graph that no kernel names; empty unless the compiler has lost some.
        unread: beginnings of the compiler's lines about kernels that are missing here, being in an unknown form.
    """

    plan: str
    gpus: tuple[GpuPeaks, ...]
    stages: tuple[KernelSums, ...]
    streams: tuple[KernelSums, ...]
    total: KernelSums
    launches_ms: float
    dearest: tuple[DearKernel, ...]
    dtype_mb: dict[str, float]
    dtype_gflop: dict[str, float]
    unplaced: tuple[str, ...]
    unread: tuple[str, ...]
    caveat: str = CAVEAT

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def make_report(table: KernelTable, gpus: Sequence[GpuPeaks], *, plan: str, launch_us: float = 0.0) -> PlanReport:
    """Sum up the kernels of a plan."""
    kernels, first = table.kernels, gpus[0]
    dearest = sorted(kernels, key=first.floor_ms, reverse=True)[:DEAREST]
    tensors = [tensor for kernel in kernels for tensor in kernel.tensors]
    return PlanReport(
        plan=plan,
        gpus=tuple(gpus),
        stages=_rows(kernels, STAGES, lambda kernel: kernel.stage, gpus),
        streams=_rows(kernels, ("plain", "denoising", "both"), lambda kernel: kernel.stream, gpus),
        total=_row("total", kernels, gpus),
        launches_ms=len(kernels) * launch_us / 1e3,
        dearest=tuple(_dear(kernel, first) for kernel in dearest),
        dtype_mb=_by_dtype((tensor.dtype, tensor.bytes / 1e6) for tensor in tensors),
        dtype_gflop=_by_dtype((kernel.dtype, kernel.flops / 1e9) for kernel in kernels if kernel.flops),
        unplaced=table.unplaced,
        unread=table.unread,
    )


def as_text(report: PlanReport) -> str:
    """The table, for people."""
    names = [gpu.name for gpu in report.gpus]
    widths = [max(len(name), 8) for name in names]
    head = f"{'stage':<20}{'kernels':>8}{'fused att.':>11}{'MB moved':>10}{'GFLOP':>8}   floor, ms: "
    head += " ".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))

    def line(row: KernelSums) -> str:
        floors = " ".join(f"{row.floor_ms[name]:>{width}.3f}" for name, width in zip(names, widths, strict=True))
        return (
            f"{row.name:<20}{row.kernels:>8}{row.fused_attentions:>11}{row.moved_mb:>10.1f}{row.gflop:>8.1f}"
            f"{'':14}{floors}"
        )

    lines = [report.plan, "", head, *map(line, report.stages), line(report.total)]
    if report.launches_ms:
        lines.append(f"and {report.launches_ms:.3f} ms for {report.total.kernels} launches")
    if report.streams:
        lines += ["", "of the encoders, by stream", *map(line, report.streams)]
    lines += ["", f"{'dearest kernels on ' + names[0]:<60}{'stage':<20}{'MB':>8}{'GFLOP':>8}{'ms':>8}  bound by"]
    lines += [
        f"{dear.kernel[:58]:<60}{dear.stage:<20}{dear.moved_mb:>8.1f}{dear.gflop:>8.2f}{dear.floor_ms:>8.3f}  "
        f"{dear.bound_by}"
        for dear in report.dearest
    ]
    lines += ["", "MB moved by type: " + _listed(report.dtype_mb, report.total.moved_mb)]
    lines += ["GFLOP by type: " + _listed(report.dtype_gflop, report.total.gflop)]
    if report.unplaced:
        lines.append(f"no kernel names {len(report.unplaced)} products of the graph, so their FLOPs are missing above")
    if report.unread:
        count = len(report.unread)
        lines.append(
            f"{count} of {report.total.kernels + count} kernels are missing above, since what the compiler wrote of "
            "them is in an unknown form:"
        )
        lines += [f"    {line}…" for line in report.unread[:_SHOWN]]
        lines += [f"    and {count - _SHOWN} more"] if count > _SHOWN else []
    return "\n".join([*lines, "", report.caveat])


def _rows(
    kernels: Sequence[Kernel], names: Sequence[str], name_of: Callable[[Kernel], str | None], gpus: Sequence[GpuPeaks]
) -> tuple[KernelSums, ...]:
    groups = {name: [kernel for kernel in kernels if name_of(kernel) == name] for name in names}
    return tuple(_row(name, group, gpus) for name, group in groups.items() if group)


def _row(name: str, kernels: Sequence[Kernel], gpus: Sequence[GpuPeaks]) -> KernelSums:
    return KernelSums(
        name=name,
        kernels=len(kernels),
        fused_attentions=sum(kernel.is_attention for kernel in kernels),
        moved_mb=sum(kernel.bytes_moved for kernel in kernels) / 1e6,
        gflop=sum(kernel.flops for kernel in kernels) / 1e9,
        floor_ms={gpu.name: sum(map(gpu.floor_ms, kernels)) for gpu in gpus},
    )


def _dear(kernel: Kernel, gpu: GpuPeaks) -> DearKernel:
    return DearKernel(
        kernel=kernel.nodes[-1] if kernel.nodes and kernel.name.startswith("__my") else kernel.name,
        stage=kernel.stage,
        moved_mb=kernel.bytes_moved / 1e6,
        gflop=kernel.flops / 1e9,
        floor_ms=gpu.floor_ms(kernel),
        bound_by="compute" if gpu.compute_ms(kernel) > gpu.memory_ms(kernel) else "memory",
    )


def _by_dtype(amounts: Iterable[tuple[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for dtype, amount in amounts:
        sums[dtype] = sums.get(dtype, 0.0) + amount
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


def _listed(amounts: dict[str, float], total: float) -> str:
    return ", ".join(f"{dtype} {amount:.1f} ({amount / total:.1%})" for dtype, amount in amounts.items()) or "none"
