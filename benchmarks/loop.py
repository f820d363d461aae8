"""What the camera line's own loop costs: throughput, the host's share of a frame, memory, and the time to start.

    python -m benchmarks.loop --engine stlm.plan

It is the loop of `runtime.camera`, with the checks of camera and drift. Without --engine there is no network: a backend
answers at once, and a source always has the next frame, so all of the time is the loop's. With one, the backend alone,
the loop, and the loops of four cameras that share it take turns. The start is from the command to the verdict on a
picture, the opening of the engine taken off. Parts come as fast as the line takes them, from a camera with a queue;
that each has its one result, in its turn, is checked and an error otherwise. A PLC, another process, triggers parts by
Modbus and waits for their results, by Modbus and, where there is a mosquitto, by MQTT. The live page is measured at 60
frames a second, with nobody, and with viewers of whom two take nothing of what they have asked for.
"""

from __future__ import annotations

import logging
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from benchmarks import loop_handover, loop_measures, loop_page, loop_parts
from benchmarks.record import Recorder, recording
from benchmarks.tables import to_text
from runtime.backends import BACKEND_CHOICES, BackendChoice, vouched
from runtime.detector import Detector
from stlm_edge.cli import run
from stlm_edge.spec import Size

_SIDE = click.IntRange(64)
_MEMORY_SIZE = (64, 64)
"""Of pictures and input, where only the number of frames matters."""
_HANDED_OVER = 100
"""Parts in a turn without an engine; with one, as many as frames."""

WANTED = (
    "wanted: 500 frames a second and more at 1024 x 1024; a p95 of 3 ms at most from 1080 x 1920 to 1024 x 1024; no "
    "growth; ratios of 0.95 and more, 0.98 with viewers; a p95 of 5 ms at most from a trigger to its result besides "
    "the network; 400 MB besides the engine at most; 2 s besides opening it at most"
)

T = TypeVar("T")


@click.command()
@click.option("--engine", type=click.Path(path_type=Path), help="Measure the loop around this one too.")
@click.option(
    "--backend", type=click.Choice(BACKEND_CHOICES), default="auto", show_default=True, help="What runs the engine."
)
@click.option("--frames", default=2000, show_default=True, type=click.IntRange(10), help="In a turn without one.")
@click.option("--engine-frames", default=30, show_default=True, type=click.IntRange(1), help="In a turn with one.")
@click.option("--turns", default=5, show_default=True, type=click.IntRange(1), help="Turns of each measurement.")
@click.option("--frame-size", nargs=2, default=(1080, 1920), show_default=True, type=_SIDE, help="Of the camera.")
@click.option("--input-size", nargs=2, default=(1024, 1024), show_default=True, type=_SIDE, help="Without an engine.")
@click.option(
    "--memory-frames", default=100_000, show_default=True, type=click.IntRange(100), help="For the growth of memory."
)
@click.option(
    "--parts", default=10_000, show_default=True, type=click.IntRange(10), help="Triggered, without an engine."
)
@click.option(
    "--viewers", default=10, show_default=True, type=click.IntRange(0), help="Of the live page, for the pace with them."
)
@click.option("--page-frames", default=600, show_default=True, type=click.IntRange(10), help="In a turn of those.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures there as JSON.")
def command(
    engine: Path | None,
    backend: BackendChoice,
    frames: int,
    engine_frames: int,
    turns: int,
    frame_size: Size,
    input_size: Size,
    memory_frames: int,
    parts: int,
    viewers: int,
    page_frames: int,
    json_path: Path | None,
) -> None:
    """Measure the loop of the camera line, alone and around ENGINE."""
    logging.getLogger("runtime").setLevel(logging.WARNING)  # it would tell the same of each turn
    if engine is not None:
        vouched(engine)  # before minutes are spent on what needs none
    with recording("loop", json_path) as recorder:
        host_times = partial(loop_measures.host_times_ms, input_size=input_size, frames=frames)
        times = [host_times(frame_size=input_size) for _ in range(turns)]
        rates = [1e3 * len(turn) / sum(turn) for turn in times]
        recorder.measure("loop throughput", rates, unit="frames/s", better="higher")
        recorder.details |= {"frame_size": list(frame_size), "input_size": list(input_size)}
        recorder.details |= {"frames": frames, "turns": turns, "loop": {"frames_per_s": _spread(rates)}}
        recorder.save()
        times = [host_times(frame_size=frame_size) for _ in range(turns)]
        hundredths = [statistics.quantiles(turn, n=100) for turn in times]
        p50, p95 = ([turn[place] for turn in hundredths] for place in (49, 94))
        recorder.measure("host p50", p50, unit="ms", better="lower")
        recorder.measure("host p95", p95, unit="ms", better="lower")
        recorder.details["host"] = {"p50_ms": _spread(p50), "p95_ms": _spread(p95)}
        recorder.save()
        resident = _apart(loop_measures.memory_of_line_mb, size=_MEMORY_SIZE, frames=memory_frames)
        recorder.measure("memory", resident[-1:], unit="MB", better="lower")
        growth = resident[-1] - resident[0]
        recorder.details["memory"] = {"frames": memory_frames, "resident_mb": resident, "growth_mb": growth}
        recorder.save()
        with loop_measures.timeless_detector(_MEMORY_SIZE) as detector:
            _record_parts(recorder, "parts", loop_parts.triggered(detector, parts=parts, frame_size=_MEMORY_SIZE))
        recorder.save()
        with loop_measures.timeless_detector(input_size) as detector:
            hand_over = partial(loop_handover.hand_over, detector, parts=_HANDED_OVER, frame_size=frame_size)
            _record_hand_over(recorder, "hand_over", [hand_over() for _ in range(turns)])
        recorder.save()
        if viewers:
            pairs = loop_page.paces(
                frame_size=frame_size,
                input_size=input_size,
                frames=page_frames,
                turns=turns,
                viewers=viewers,
                stalled=2,
            )
            ratios = [watched / alone for alone, watched in pairs]
            recorder.measure(f"share of the pace with {viewers} viewers", ratios, unit="×", better="higher")
            recorder.details["page"] = {
                "viewers": viewers,
                "stalled_viewers": 2,
                "camera_frames_per_s": loop_page.FPS,
                "alone_frames_per_s": _spread([alone for alone, _ in pairs]),
                "viewed_frames_per_s": _spread([watched for _, watched in pairs]),
                "ratio": _spread(ratios),
            }
            recorder.save()
        if engine is not None:
            _around(engine, backend, recorder, frame_size=frame_size, frames=engine_frames, turns=turns)
    click.echo(f"{to_text(recorder.record(is_complete=True), 'loop')}\n\n{WANTED}")


def _around(
    engine: Path, backend: BackendChoice, recorder: Recorder, *, frame_size: Size, frames: int, turns: int
) -> None:
    """Record what is measured of an engine."""
    name, rates = loop_measures.throughputs(engine, backend=backend, frame_size=frame_size, frames=frames, turns=turns)
    ratios = [loop / alone for alone, loop, _ in rates]
    shared = [several / alone for alone, _, several in rates]
    memory = _apart(loop_measures.memory_of_engine_mb, engine=engine, backend=name, frame_size=frame_size)
    with Detector.open(engine, backend=cast(BackendChoice, name)) as detector:
        size = detector.spec.frame_size or frame_size
        _record_parts(recorder, "parts of the engine", loop_parts.triggered(detector, parts=frames, frame_size=size))
        hand_over = partial(loop_handover.hand_over, detector, parts=frames, frame_size=size)
        _record_hand_over(recorder, "hand_over_of_the_engine", [hand_over() for _ in range(turns)])
    besides_mb = memory["running_mb"] - (memory["opened_mb"] - memory["before_mb"])
    starts = []
    for _ in range(turns):
        opening = _apart(loop_measures.opening_s, engine=engine, backend=name)
        verdict, infer = loop_measures.first_verdict_s(engine, backend=name, frame_size=frame_size)
        starts.append({"verdict_s": verdict, "opening_s": opening, "infer_s": infer, "besides_s": verdict - opening})
    start = {key: [turn[key] for turn in starts] for key in starts[0]}
    recorder.measure("loop's share of the engine's throughput", ratios, unit="×", better="higher")
    name_of_shared = f"share of the engine's throughput, {loop_measures.CAMERAS} cameras"
    recorder.measure(name_of_shared, shared, unit="×", better="higher")
    recorder.measure("memory besides the engine", [besides_mb], unit="MB", better="lower")
    recorder.measure("start besides the engine", start["besides_s"], unit="s", better="lower")
    recorder.details |= {
        "engine": {
            "backend": name,
            "frames": frames,
            "backend_frames_per_s": _spread([alone for alone, _, _ in rates]),
            "loop_frames_per_s": _spread([loop for _, loop, _ in rates]),
            "ratio": _spread(ratios),
            "cameras": loop_measures.CAMERAS,
            "cameras_frames_per_s": _spread([several for _, _, several in rates]),
            "cameras_ratio": _spread(shared),
        },
        "engine_memory": memory | {"besides_engine_mb": besides_mb},
        "start": {key: _spread(values) for key, values in start.items()},
    }


def _record_parts(recorder: Recorder, name: str, found: tuple[float, dict[str, int]]) -> None:
    per_second, verdicts = found
    recorder.measure(f"{name} a second", [per_second], unit="parts/s", better="higher")
    recorder.details[name.replace(" ", "_")] = {"parts_per_s": _spread([per_second]), "verdicts": verdicts}


def _record_hand_over(recorder: Recorder, name: str, turns: Sequence[loop_handover.HandOver]) -> None:
    infer_p95 = [_p95(turn.infer_ms) for turn in turns]
    recorder.details[name] = {"parts": len(turns[0].infer_ms), "infer_p95_ms": _spread(infer_p95)}
    for way in ("modbus_ms", "mqtt_ms"):
        if times := [getattr(turn, way) for turn in turns if getattr(turn, way)]:
            besides = [
                _p95([whole - infer for whole, infer in zip(each, turn.infer_ms, strict=True)])
                for each, turn in zip(times, turns, strict=True)
            ]
            recorder.details[name][way.removesuffix("_ms")] = {
                "p95_ms": _spread([_p95(each) for each in times]),
                "besides_network_p95_ms": _spread(besides),
            }


def _p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def _apart(measure: Callable[..., T], **arguments: Any) -> T:
    """What `measure` returns, called in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, kwds=arguments)


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {"median": statistics.median(values), "turns": list(values)}


main = partial(run, command)


if __name__ == "__main__":
    sys.exit(main())
