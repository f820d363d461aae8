"""Where the time of the deployment graph goes, stage by stage, beside the floor of the roofline.

    python -m benchmarks.gpu.stages --checkpoint model.safetensors --device cuda

Each module of the graph tells when it begins and ends: by CUDA events on a GPU, which do not hold the stream up, by the
clock on a processor. What PyTorch launches is not fused, so a stage moves more bytes than its floor counts, which is
that of the FP16 plan in `benchmarks/results/counts.json`: the ratio says what a compiler can gain there.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

import click

from stlm_edge.cli import run

if TYPE_CHECKING:
    import torch
    from torch import nn

    from export.tensorrt.roofline import Gpu

Device = Literal["cpu", "cuda"]

_MODULES = {
    "pixels": "input",
    **{f"{stream}.backbone.patch_embed": "patch embed" for stream in ("plain", "denoising")},
    **{
        f"{stream}.backbone.stages.{number}": f"stage {number}"
        for stream in ("plain", "denoising")
        for number in range(4)
    },
    **{f"{stream}.neck": "neck" for stream in ("plain", "denoising")},
    "decoder": "decoder",
    "denoising_decoder": "decoder",
    "comparison": "comparison",
    "feature_aggregation": "feature aggregation",
    "scoring": "score",
}
"""Module of the deployment graph → stage, as `export.tensorrt.kernels.STAGES` has them."""

_SETTLING = 3


@click.command()
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path), help="The network.")
@click.option("--device", default="cuda", show_default=True, type=click.Choice(["cpu", "cuda"]))
@click.option("--data", type=click.Path(path_type=Path), help="Pictures.  [drawn]")
@click.option("--half/--full", default=True, show_default=True, help="Half precision by autocast, or FP32.")
@click.option("--turns", default=5, show_default=True, type=click.IntRange(1))
@click.option("--runs", default=20, show_default=True, type=click.IntRange(1), help="Pictures in a turn.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures there as JSON.")
def command(
    checkpoint: Path, device: Device, data: Path | None, half: bool, turns: int, runs: int, json_path: Path | None
) -> None:
    """Measure each stage of the deployment graph in PyTorch, for one picture."""
    import numpy as np
    import torch

    from benchmarks.contenders import Pictures
    from benchmarks.environment import device as this_device
    from benchmarks.gpu.deployment import Form, runner
    from benchmarks.record import recording
    from export.graph.deployment import DeploymentGraph
    from stlm_edge.imaging import to_input
    from stlm_edge.network.checkpoint import load
    from stlm_edge.network.inference import InferencePath, choose_device

    place, loaded = choose_device(device), load(checkpoint)
    graph = DeploymentGraph(InferencePath(loaded.network, loaded.spec).eval()).to(place)
    inspect = runner(graph, Form(half=half), place)
    pictures = [
        torch.from_numpy(np.ascontiguousarray(to_input(frame, spec=loaded.spec))) for frame in Pictures(data).load()
    ]
    gpu = known_gpu(this_device().gpu) if device == "cuda" else None
    with recording("gpu.stages", json_path) as recorder, StageClock(graph, place) as clock:
        seconds: list[list[dict[str, float]]] = []
        for turn in range(turns):
            seconds.append([])
            for index in range(-_SETTLING, runs):
                images = pictures[(turn * runs + index) % len(pictures)].to(place)
                clock.start()
                inspect(images)
                spent = clock.stop_ms()
                if index >= 0:
                    seconds[-1].append(spent)
        names = list(seconds[0][0])
        for name in names:
            medians = [median(entry[name] for entry in entries) for entries in seconds]
            recorder.measure(f"{name} p50", medians, unit="ms", better="lower")
        floors = plan_stages(loaded.spec.architecture, loaded.spec.input_size)
        recorder.details |= {
            "architecture": loaded.spec.architecture,
            "input_size": list(loaded.spec.input_size),
            "batch": 1,
            "engine": f"deployment graph, {'half' if half else 'fp32'}",
            "library": "pytorch",
            "peak": None if gpu is None else {"gflop_s": gpu.fp16_tflops * 1e3, "gb_s": gpu.memory_gb_s},
            "stages": [
                _stage(name, recorder.measures[f"{name} p50"].median, floors.get(name), gpu)
                for name in names
                if name != "total"
            ],
            "total_ms": recorder.measures["total p50"].median,
        }
        for line in _lines(recorder.details):
            click.echo(line)


class StageClock:
    """Tells of the modules of a deployment graph how long each stage took; a context manager that puts hooks on them.

    What lies between the modules is `other`.
    """

    def __init__(self, graph: nn.Module, device: torch.device) -> None:
        self._graph = graph
        self._on_gpu = device.type == "cuda"
        self._marks: list[tuple[str, Any, Any]] = []
        self._begun: list[Any] = []
        self._first: Any = None

    def __enter__(self) -> StageClock:
        modules = dict(self._graph.named_modules())
        self._hooks = []
        for path, stage in _MODULES.items():
            if path in modules:
                self._hooks.append(modules[path].register_forward_pre_hook(lambda *_: self._begun.append(self._mark())))
                self._hooks.append(modules[path].register_forward_hook(self._ended(stage)))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def start(self) -> None:
        """Just before the graph runs."""
        self._marks.clear()
        self._first = self._mark()

    def stop_ms(self) -> dict[str, float]:
        """Just after it: stage → milliseconds, both streams together, with `other` and `total`. Waits for the GPU."""
        last = self._mark()
        if self._on_gpu:
            last.synchronize()
        stages: dict[str, float] = {}
        for stage, begun, ended in self._marks:
            stages[stage] = stages.get(stage, 0.0) + self._between_ms(begun, ended)
        total = self._between_ms(self._first, last)
        return stages | {"other": total - sum(stages.values()), "total": total}

    def _ended(self, stage: str) -> Any:
        def hook(*_: object) -> None:
            self._marks.append((stage, self._begun.pop(), self._mark()))

        return hook

    def _mark(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        import torch

        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _between_ms(self, begun: Any, ended: Any) -> float:
        return float(begun.elapsed_time(ended)) if self._on_gpu else 1e3 * (ended - begun)


def plan_stages(architecture: str, input_size: tuple[int, int]) -> dict[str, dict[str, Any]]:
    """Stage → what the FP16 plan of a network does there, from `counts.json`; empty for another network or size."""
    from benchmarks.counts import BASELINE
    from benchmarks.record import read

    details = read(BASELINE).details
    if (details["architecture"], tuple(details["input_size"])) != (architecture, input_size):
        return {}
    return {stage["name"]: stage for stage in details["stages"]}


def known_gpu(name: str | None) -> Gpu | None:
    """Of a GPU by the driver's name, its peaks; None where they are not known."""
    from benchmarks.estimate import SOLD_AS
    from export.tensorrt.roofline import GPUS

    return GPUS.get(SOLD_AS.get(name or "", ""))


def _stage(name: str, measured_ms: float, plan: dict[str, Any] | None, gpu: Gpu | None) -> dict[str, Any]:
    return {
        "name": name,
        "measured_ms": measured_ms,
        "floor_ms": None if plan is None or gpu is None else plan["floor_ms"][gpu.name],
        "gflop": None if plan is None else plan["gflop"],
        "moved_mb": None if plan is None else plan["moved_mb"],
    }


def _lines(details: dict[str, Any]) -> Iterator[str]:
    yield f"{details['engine']}, one picture"
    yield f"{'stage':<22}{'ms':>9}{'floor':>9}{'ratio':>8}{'GB/s':>9}{'GFLOP/s':>10}"
    for stage in details["stages"]:
        measured, floor, moved, gflop = (stage[name] for name in ("measured_ms", "floor_ms", "moved_mb", "gflop"))
        yield (
            f"{stage['name']:<22}{measured:>9.3f}"
            + (f"{'-':>9}{'-':>8}" if floor is None else f"{floor:>9.3f}{measured / floor:>8.1f}")
            + ("" if moved is None else f"{moved / measured:>9.0f}{1e3 * gflop / measured:>10.0f}")
        )
    yield f"{'total':<22}{details['total_ms']:>9.3f}"
    yield "GB/s and GFLOP/s: what the FP16 plan would move and compute, in the time measured here"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
