"""The picture of the plan report: each kernel under the roof of one GPU, and the stages' floors on all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.graph.parts import STAGES
from export.tensorrt.kernels import KernelTable
from export.tensorrt.report import PlanReport
from stlm_edge.errors import ConfigError, OutputError
from stlm_edge.files import replacing
from stlm_edge.tensorrt import GpuPeaks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {
    "input": "#7f7f7f",
    "patch embed": "#deebf7",
    "stage 0": "#9ecae1",
    "stage 1": "#6baed6",
    "stage 2": "#3182bd",
    "stage 3": "#08519c",
    "neck": "#1b9e77",
    "encoders": "#3182bd",
    "decoder": "#e6550d",
    "comparison": "#fdae6b",
    "feature aggregation": "#9e9ac8",
    "patch memory": "#e7298a",
    "score": "#d62728",
    "other": "#000000",
}
"""Blues for the encoders, from shallow to deep."""


def draw(table: KernelTable, report: PlanReport, path: Path) -> None:
    """Write the picture, atomically.

    Raises:
        ConfigError: if `path` is no .png file.
        OutputError: if it cannot be written, or there is no matplotlib.
    """
    if path.suffix != ".png":
        raise ConfigError(f"{path} has the suffix {path.suffix!r}, expected .png; rename the picture")
    try:  # nothing else here needs it, and a machine that builds plans may have none
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OutputError(
            f"{path} cannot be drawn without matplotlib ({error}); pip install matplotlib, or leave --output out"
        ) from error

    figure = Figure(figsize=(15, 7), layout="constrained")
    FigureCanvasAgg(figure)
    roof, bars = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _draw_roof(roof, table, report.gpus[0])
    _draw_bars(bars, report)
    total = report.total
    figure.suptitle(
        f"{report.plan}: {total.kernels} kernels, {total.fused_attentions} fused attentions, {total.moved_mb:.0f} MB "
        f"moved, {total.gflop:.1f} GFLOP.  Floors, computed and not measured"
    )
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _draw_roof(axes: Axes, table: KernelTable, gpu: GpuPeaks) -> None:
    """Each kernel with products at the height that its intensity allows; the area is its share of the floor."""
    computing = [kernel for kernel in table.kernels if kernel.flops]
    total = sum(map(gpu.floor_ms, table.kernels))
    for stage in STAGES:
        kernels = [kernel for kernel in computing if kernel.stage == stage]
        if kernels:
            axes.scatter(
                [kernel.flops / kernel.bytes_moved for kernel in kernels],
                [kernel.flops / gpu.floor_ms(kernel) / 1e9 for kernel in kernels],
                s=[12 + 8000 * gpu.floor_ms(kernel) / total for kernel in kernels],
                color=_COLOURS[stage],
                edgecolor="black",
                linewidth=0.4,
                alpha=0.75,
                label=stage,
                zorder=3,
            )
    intensities = [kernel.flops / kernel.bytes_moved for kernel in computing] or [1.0]
    low, high = min(intensities) / 2, 2 * max(*intensities, 1e3)
    for dtype in dict.fromkeys(kernel.dtype for kernel in computing):
        peak = gpu.peak_flops_s(dtype) / 1e12
        ridge = 1e3 * peak / gpu.memory_gb_s
        axes.plot([min(low, ridge), ridge, high], [min(low, ridge) * gpu.memory_gb_s / 1e3, peak, peak], "k-", lw=1)
        axes.annotate(
            f"{dtype}, {peak:g} T/s", (high, peak), xytext=(0, 9), textcoords="offset points", ha="right", va="bottom"
        )
    others = [kernel for kernel in table.kernels if not kernel.flops]
    share = sum(map(gpu.floor_ms, others)) / total
    axes.margins(y=0.12)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="FLOP for each byte moved",
        ylabel="attainable TFLOP a second",
        title=f"{gpu.name}, {gpu.memory_gb_s:g} GB/s: {len(computing)} kernels with products, by area their share of "
        f"the floor\n(the other {len(others)} kernels only move bytes, {share:.0%} of the floor)",
    )
    legend = axes.legend(loc="lower right")
    for handle in legend.legend_handles:
        handle.set_sizes([60])  # type: ignore[union-attr]  # all are scatters
    axes.grid(which="major", alpha=0.3)


def _draw_bars(axes: Axes, report: PlanReport) -> None:
    """For each GPU the stages' shares of its floor, whose total stands beside: totals differ fiftyfold."""
    names = [gpu.name for gpu in report.gpus]
    left = [0.0] * len(names)
    for row in report.stages:
        shares = [100 * row.floor_ms[name] / report.total.floor_ms[name] for name in names]
        axes.barh(names, shares, left=left, color=_COLOURS[row.name], edgecolor="white", label=row.name)
        for index, (start, share) in enumerate(zip(left, shares, strict=True)):
            text = f"{row.floor_ms[names[index]]:.2g}"
            if share >= 2 * len(text):  # narrower, the figure would run into its neighbours
                dark = row.name in ("stage 2", "stage 3", "encoders", "other")
                axes.text(start + share / 2, index, text, ha="center", va="center", color="w" if dark else "k")
        left = [start + share for start, share in zip(left, shares, strict=True)]
    for index, name in enumerate(names):
        axes.text(101, index, f"{report.total.floor_ms[name]:.3g} ms", va="center", fontweight="bold")
    axes.invert_yaxis()
    axes.set(xlim=(0, 118), xlabel="% of the floor; figures are ms", title="Floor by stage")
    axes.set_xticks(range(0, 101, 20))
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.1), ncols=4)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
