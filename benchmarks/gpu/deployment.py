"""The deployment graph run by PyTorch, in several forms that take turns with the authors' way.

    python -m benchmarks.gpu.deployment --checkpoint model.safetensors --device cuda

It is what is exported, before a compiler fuses it: how much of the gain is the graph's, and whether stacked streams pay
on this device. In half precision autocast keeps in FP32 what it does not trust FP16 with: norms and softmax.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from benchmarks.contenders import Pictures, network_contender
from benchmarks.turns import TOTAL, Contender, Schedule, Timed, take_turns
from stlm_edge.cli import run

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from export.graph.deployment import Streams
    from stlm_edge.spec import ModelSpec

Device = Literal["cpu", "cuda"]

_DEFAULT = Schedule()
_WARM_UP = 3
"""Runs before a CUDA graph is captured, since libraries choose their kernels in the first ones."""


@dataclass(frozen=True)
class Form:
    """How the graph is run.

    Attributes:
        half: by autocast, in FP16 on a GPU and in bfloat16 on a processor.
        graphed: all kernels launched by one CUDA graph.
    """

    streams: Streams = "branched"
    half: bool = False
    graphed: bool = False

    def __str__(self) -> str:
        words = ["deployment graph", self.streams, "half" * self.half, "cuda-graph" * self.graphed]
        return " ".join(filter(None, words))


FORMS = tuple(
    Form(streams, half, graphed)
    for half in (True, False)
    for graphed in (True, False)
    for streams in ("branched", "stacked")
)


@click.command()
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path), help="The network.")
@click.option("--device", default="cuda", show_default=True, type=click.Choice(["cpu", "cuda"]))
@click.option("--data", type=click.Path(path_type=Path), help="Pictures.  [drawn]")
@click.option("--batch", default=1, show_default=True, type=click.IntRange(1), help="Pictures at once.")
@click.option("--turns", default=_DEFAULT.turns, show_default=True, type=click.IntRange(1), help="Of each form.")
@click.option("--runs", default=_DEFAULT.runs, show_default=True, type=click.IntRange(1), help="Batches in a turn.")
@click.option("--turn-seconds", default=_DEFAULT.turn_s, show_default=True, type=click.FloatRange(0.1))
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures there as JSON.")
def command(
    checkpoint: Path,
    device: Device,
    data: Path | None,
    batch: int,
    turns: int,
    runs: int,
    turn_seconds: float,
    json_path: Path | None,
) -> None:
    """Measure the deployment graph in PyTorch: branched and stacked streams, FP32 and half, with and without a CUDA
    graph."""
    from benchmarks.conditions import watching
    from benchmarks.latency_figures import entry, tables
    from benchmarks.record import recording
    from stlm_edge.network.inference import choose_device

    choose_device(device)
    pictures = Pictures(data)
    contenders = [
        network_contender(checkpoint, way="eager", device=device, pictures=pictures, batch=batch),
        *(
            deployment_contender(checkpoint, form, device=device, pictures=pictures, batch=batch)
            for form in FORMS
            if device == "cuda" or not form.graphed
        ),
    ]
    with recording("gpu.deployment", json_path) as recorder, watching() as watch:

        def keep(timed: Sequence[Timed]) -> None:
            for one in timed:
                recorder.measure(f"{one.name} total p50", one.quantiles(0.5), unit="ms", better="lower")
            recorder.details |= {
                "input_size": timed[0].facts["input_size"],
                "batch": batch,
                "pictures": pictures.describe(),
                "contenders": [entry(one, first=timed[0], batch=batch) for one in timed],
                "conditions": watch.to_dict(),
            }
            recorder.save()

        schedule = Schedule(turns=turns, runs=runs, turn_s=turn_seconds)
        keep(take_turns(contenders, schedule, after_turn=keep))
        for line in tables(recorder.details["contenders"]):
            click.echo(line)


def deployment_contender(
    checkpoint: Path, form: Form, *, device: Device, pictures: Pictures, batch: int = 1
) -> Contender:
    """A checkpoint's deployment graph, named after its form. What is wrong is found when it is opened."""
    return Contender(
        str(form),
        partial(open_deployment, checkpoint, form=form, device=device, pictures=pictures, batch=batch),
    )


@contextmanager
def open_deployment(
    checkpoint: Path, *, form: Form, device: Device, pictures: Pictures, batch: int
) -> Iterator[DeploymentSubject]:
    """Raises `CheckpointError`, `ConfigError`, `DataError`, `ImageError`."""
    from export.graph.deployment import DeploymentGraph
    from stlm_edge.network.checkpoint import load
    from stlm_edge.network.inference import InferencePath, choose_device

    place, loaded = choose_device(device), load(checkpoint)
    graph = DeploymentGraph(InferencePath(loaded.network, loaded.spec).eval(), streams=form.streams).to(place)
    facts = {
        "library": "pytorch",
        "precision": ("fp16" if device == "cuda" else "bf16") if form.half else "fp32",
        "device": _name(place),
        "architecture": loaded.spec.architecture,
        "parameters": sum(parameter.numel() for parameter in loaded.network.parameters()),
        "input_size": list(loaded.spec.input_size),
        "note": None,
    }
    yield DeploymentSubject(
        runner(graph, form, place), spec=loaded.spec, device=place, facts=facts, pictures=pictures, batch=batch
    )


class DeploymentSubject:
    """A deployment graph on its device with its pictures."""

    def __init__(
        self,
        inspect: Callable[[torch.Tensor], tuple[torch.Tensor, ...]],
        *,
        spec: ModelSpec,
        device: torch.device,
        facts: dict[str, Any],
        pictures: Pictures,
        batch: int,
    ) -> None:
        self.facts = facts
        self._inspect = inspect
        self._spec = spec
        self._device = device
        self._images = pictures.load()
        self._batch = batch

    def run(self, index: int) -> Mapping[str, float]:
        """One batch; milliseconds per picture, with the stages of all contenders."""
        import numpy as np
        import torch

        from benchmarks.contenders.pictures import batch_of
        from stlm_edge.imaging import to_input

        marks = [time.perf_counter()]
        frames = batch_of(self._images, index, size=self._batch)
        pixels = np.concatenate([to_input(frame, spec=self._spec) for frame in frames])
        marks.append(time.perf_counter())
        images = torch.from_numpy(pixels).to(self._device)
        marks.append(self._now_s())
        answer = self._inspect(images)
        marks.append(self._now_s())
        scores = [output.cpu() for output in answer][1]
        marks.append(time.perf_counter())
        threshold = self._spec.threshold
        [threshold is not None and float(score) >= threshold.value for score in scores]
        marks.append(time.perf_counter())
        names = ("prepare", "upload", "infer", "download", "decide")
        spent = dict(zip(names, np.diff(marks), strict=True)) | {TOTAL: marks[-1] - marks[0]}
        return {stage: 1e3 * float(seconds) / self._batch for stage, seconds in spent.items()}

    def _now_s(self) -> float:
        """When the device has done what it was given."""
        import torch

        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def runner(
    graph: torch.nn.Module, form: Form, device: torch.device
) -> Callable[[torch.Tensor], tuple[torch.Tensor, ...]]:
    """What runs `graph` in its form; with a CUDA graph, its answers are overwritten by the next call.

    On a GPU it switches TF32 off for the whole process.
    """
    import torch

    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")
    dtype = torch.float16 if device.type == "cuda" else torch.bfloat16

    @torch.no_grad()
    def inspect(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.autocast(device.type, dtype, enabled=form.half, cache_enabled=not form.graphed):
            return tuple(output.float() for output in graph(images))

    return _captured(inspect) if form.graphed else inspect


def _captured(
    inspect: Callable[[torch.Tensor], tuple[torch.Tensor, ...]],
) -> Callable[[torch.Tensor], tuple[torch.Tensor, ...]]:
    import torch

    captured: dict[str, Any] = {}

    def capture(images: torch.Tensor) -> None:
        captured["images"] = images.clone()
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                inspect(captured["images"])
        torch.cuda.current_stream().wait_stream(stream)
        captured["graph"] = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured["graph"]):
            captured["answer"] = inspect(captured["images"])

    def replay(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if not captured:
            capture(images)
        captured["images"].copy_(images)
        captured["graph"].replay()
        return tuple(captured["answer"])

    return replay


def _name(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
