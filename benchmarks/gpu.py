"""All that is to be measured on an NVIDIA GPU, in one call.

    stlm export onnx model.safetensors -o model.onnx --precision fp16         # beforehand; a processor is enough
    python -m benchmarks.gpu --checkpoint model.safetensors --output try/ --device cpu --quick

    pip install -e '.[train,export,nvml]' '.[tensorrt]'                             # there, or '.[tensorrt-rtx]'
    pip install onnxruntime-gpu                                                     # in the place of onnxruntime
    python -m benchmarks.gpu --checkpoint model.safetensors --graph model.onnx --output results/

    pip install -e '.[tensorrt]'                                                    # on a Jetson, without torch
    python -m benchmarks.gpu --graph fp16.onnx --graph int8.onnx --output results/

Plans are built first, since all else is measured beside them; then parts are done in the order of their importance by
`benchmarks.latency` and `export`, each in a process of its own under a limit of time, until the minutes are over. Each
leaves its record and its log at once; one that fails is written down with what it said, and the next one begins.
`gpu.json` says what became of all of them and holds their figures. Another call with the same `--output` builds faster:
TensorRT's timings of kernels are kept there.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import click

from benchmarks.record import Recorder, read, recording
from benchmarks.tables import to_text
from stlm_edge import steps
from stlm_edge.cli import Number, run
from stlm_edge.errors import ConfigError
from stlm_edge.files import make_folder
from stlm_edge.measure import program
from stlm_edge.tensorrt import MODULES, find_gpu

Device = Literal["cpu", "cuda"]
PATH = click.Path(path_type=Path)
BATCH = 8

_MINUTES = 9.0  # for everything, on a card and at 1024 x 1024, as all limits of parts
_LIMITS_PIXELS = 1024 * 1024
_SHORTEST_S = 20.0  # no part is begun with less time left
_UNHURRIED = 10  # on a processor, which is for trying, parts have so many times their limit
_SMALL_BOARD = 6  # and where GPU and processor share memory: TensorRT tries the same kernels on a Jetson


@dataclass(frozen=True)
class Part:
    """One of the things to be measured; it is stopped when its time is over, and what it has written then stays."""

    name: str
    command: tuple[str, ...]  # module and arguments, without `--json`, which each module of benchmarks is given
    limit_s: float
    needs_gpu: bool = False
    after: str | None = None  # a part that must have been done
    needs: str | None = None  # a package that must be installed


def plan_parts(
    checkpoint: Path | None,
    graphs: Sequence[Path],
    *,
    output: Path,
    device: Device,
    data: Path | None,
    quick: bool,
    keeps_timings: bool,
) -> Iterator[Part]:
    """All parts in the order of their importance, builds first.

    Args:
        checkpoint: what PyTorch runs; None to measure plans of `graphs` alone. Without a graph there is one more part,
            which exports it in FP16.
        keeps_timings: the product that builds has a timing cache.
    """
    amount = ("--turns", "2", "--runs", "2") if quick else ("--turns", "6", "--runs", "30")
    pictures = () if data is None else ("--data", str(data))
    network = () if checkpoint is None else ("--checkpoint", str(checkpoint), "--device", device)
    timing = (*amount, "--turn-seconds", "2", *pictures)
    cache = ("--timing-cache", str(output / "timings")) if keeps_timings else ()

    def ways(name: str, limit_s: float, *others: str, batch: int = 1, needs_gpu: bool = False) -> Part:
        listed = [word for way in ("eager", *others) for word in ("--way", way)]
        command = ("benchmarks.latency", *network, *listed, "--batch", str(batch), *timing)
        return Part(name if batch == 1 else f"{name}-{batch}", command, limit_s, needs_gpu)

    after = None
    if checkpoint is not None and not graphs:
        after, graphs = "export", [output / f"{checkpoint.stem}.fp16.onnx"]
        command = ("export", "onnx", str(checkpoint), "-o", str(graphs[0]), "--precision", "fp16", *pictures)
        yield Part(after, command, 150)
    plans = {graph: output / f"{graph.stem}.plan" for graph in graphs}
    for graph, plan in plans.items():
        build = ("export", "engine", str(graph), "-o", str(plan), *cache)
        yield Part(f"build-{graph.stem}", build, 300, True, after)
    against = (*network, *(("--way", "eager") if network else ()), *timing)
    for graph, plan in plans.items():
        name, command = graph.stem, ("benchmarks.latency", "--engine", str(plan), *against)
        yield Part(f"plan-{name}", command, 75, True, f"build-{name}")
    if network:
        yield ways("ways", 90, "batched", "half")
        yield ways("tf32", 60, "eager+tf32", "tf32", needs_gpu=True)
        yield ways("cuda-graph", 75, "half+cuda-graph", "cuda-graph", needs_gpu=True)
    for graph in graphs:
        cuda = ("benchmarks.latency", "--engine", str(graph), "--backend", "onnxruntime-cuda", *against)
        yield Part(f"onnxruntime-{graph.stem}", cuda, 75, True, after, needs="onnxruntime-gpu")
    if network:
        yield ways("ways", 90, "batched", "half", batch=BATCH)
        yield ways("cuda-graph", 75, "half+cuda-graph", batch=BATCH, needs_gpu=True)
        yield ways("channels-last", 60, "half+channels-last")
        yield ways("compile", 180, "half+compile")
        yield ways("compile-cuda-graph", 180, "half+compile+cuda-graph", needs_gpu=True)


def patience(device: Device, *, pixels: int, shares_memory: bool) -> float:
    """How many times its limit a part has: more for large inputs, on small boards and on processors."""
    slowness = _UNHURRIED if device == "cpu" else _SMALL_BOARD if shares_memory else 1
    return slowness * max(1.0, pixels / _LIMITS_PIXELS)


@click.command()
@click.option("--checkpoint", type=PATH, help="The network to measure in PyTorch too; a device without torch has none.")
@click.option("--graph", "graphs", multiple=True, type=PATH, help="Its ONNX file; repeatable.  [exported in FP16]")
@click.option("--output", required=True, type=PATH, help="Folder for records and logs.")
@click.option("--data", type=PATH, help="Pictures.  [drawn]")
@click.option("--device", default="cuda", show_default=True, type=click.Choice(["cpu", "cuda"]))
@click.option("--part", "wanted", multiple=True, help="Do only this one; repeatable.  [all]")
@click.option(
    "--minutes",
    type=Number(0.1),
    help="For everything.  [default: 9 on a card at 1024 x 1024, more for larger inputs and on a Jetson]",
)
@click.option("--quick", is_flag=True, help="Few pictures: to see whether everything works.")
def command(
    checkpoint: Path | None,
    graphs: tuple[Path, ...],
    output: Path,
    data: Path | None,
    device: Device,
    wanted: tuple[str, ...],
    minutes: float | None,
    quick: bool,
) -> int:
    """Measure a network in all ways on this GPU, one part after the other; ends with 1 unless all that could be was."""
    pixels = _require_usable(checkpoint, graphs)
    gpu = find_gpu()
    if device == "cuda" and gpu is None:
        raise ConfigError("found no NVIDIA GPU or no driver; try the rest with --device cpu --quick")
    times = patience(device, pixels=pixels, shares_memory=gpu is not None and gpu.shares_memory)
    keeps_timings = importlib.util.find_spec(MODULES["tensorrt"]) is not None  # it comes before TensorRT-RTX
    parts = list(
        plan_parts(
            checkpoint, graphs, output=output, device=device, data=data, quick=quick, keeps_timings=keeps_timings
        )
    )
    names = [part.name for part in parts]
    if not set(wanted) <= set(names):
        raise ConfigError(f"found --part {', '.join(wanted)}, expected some of {', '.join(names)}; choose among those")
    make_folder(output)
    end_s = time.monotonic() + 60 * (times * _MINUTES if minutes is None else minutes)
    entries: list[dict[str, Any]] = []
    with recording("gpu", output / "gpu.json") as recorder:
        recorder.details |= {"device": device, "quick": quick, "parts": entries}
        for part in parts:
            if wanted and part.name not in wanted:
                continue
            reason = why_not(part, entries, device=device, left_s=end_s - time.monotonic())
            if reason is None:
                entries.append(do(part, output, limit_s=min(times * part.limit_s, end_s - time.monotonic())))
            else:
                entries.append({"name": part.name, "status": "left out", "reason": reason, "seconds": 0.0})
            _take_over(recorder, entries[-1])
            recorder.save()
            click.echo("{name}: {status} after {seconds} s".format_map(entries[-1]), err=True)
        click.echo(to_text(recorder.record(is_complete=True), "gpu"))
    statuses = [entry["status"] for entry in entries]
    return 0 if "done" in statuses and not {"failed", "stopped"} & set(statuses) else 1


def _require_usable(checkpoint: Path | None, graphs: Sequence[Path]) -> int:
    """The pixels of the network's input. Raises `StlmError`, or each part would find out for itself."""
    from export.graph.graph import read_graph  # these need onnx and torch, which --help does not

    if checkpoint is None and not graphs:
        raise ConfigError("found nothing to measure, expected --checkpoint CHECKPOINT, --graph GRAPH.onnx or both")
    sizes = [read_graph(graph).spec.input_size for graph in graphs]
    if checkpoint is not None:
        from stlm_edge.network.checkpoint import load

        sizes.append(load(checkpoint).spec.input_size)
    return max(height * width for height, width in sizes)


def why_not(part: Part, done: Sequence[dict[str, Any]], *, device: Device, left_s: float) -> str | None:
    """Why a part is left out; None if it is not."""
    if part.needs_gpu and device == "cpu":
        return "needs a GPU"
    if part.needs is not None and not _is_installed(part.needs):
        return f"{part.needs} is not installed"
    if part.after is not None and part.after not in [entry["name"] for entry in done if entry["status"] == "done"]:
        return f"{part.after} was not done"
    return "no time was left" if left_s < _SHORTEST_S else None


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def do(part: Part, output: Path, *, limit_s: float) -> dict[str, Any]:
    """Do a part: its entry in the record, with `status` done, failed or stopped."""
    record, log = output / f"{part.name}.json", output / f"{part.name}.log"
    record.unlink(missing_ok=True)
    writes_record = part.command[0].startswith("benchmarks.")
    command = [*program(part.command[0]), *part.command[1:], *(("--json", str(record)) if writes_record else ())]
    outcome = steps.do(part.name, command, shown=part.command, log=log, limit_s=limit_s)
    return outcome.to_json() | {"command": list(part.command), "record": str(record) if record.exists() else None}


def _take_over(recorder: Recorder, entry: dict[str, Any]) -> None:
    """Put a part's measures and subjects into the record of all of them."""
    if entry.get("record") is None:
        return
    found = read(Path(entry["record"]))
    recorder.measures |= {f"{entry['name']}: {name}": measure for name, measure in found.measures.items()}
    entry["subjects"] = [
        {name: subject[name] for name in ("name", "speed_up", "first_ms", "gpu_mb")}
        | {"p50_ms": subject["stages"]["total"]["p50_ms"], "infer_ms": subject["stages"]["infer"]["p50_ms"]}
        for subject in found.details.get("subjects", [])
    ]


main = partial(run, command)


if __name__ == "__main__":
    sys.exit(main())
