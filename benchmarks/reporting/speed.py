"""Tables of what was timed and weighed."""

from __future__ import annotations

from typing import Any

from benchmarks.record import Record
from benchmarks.reporting.tables import NOTHING, Kind, Row, figure, size, spread, words


def _latency(record: Record) -> list[Row]:
    rows = []
    for entry in record.details["contenders"]:
        total, ratio = entry["stages"]["total"], entry["speed_up"]
        rows.append(
            (
                entry["name"],
                f"{words(entry['library'])}, {words(entry['precision'])}",
                *(figure(total[name]) for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms")),
                figure(entry["frames_per_s"]),
                NOTHING if ratio is None else spread(ratio["median"], ratio["low"], ratio["high"]),
                figure(entry["load_s"]),
                figure(entry["first_ms"]),
                figure(entry["running_mb"]),
                str(entry["runs"]),
            )
        )
    return rows


def _latency_notes(record: Record) -> list[str]:
    details = record.details
    first = details["contenders"][0]["name"]
    notes = [
        f"Milliseconds for each picture, from the picture to the verdict; {details['pictures']}, frames of "
        f"{_one_size(details['frame_size'])}, input {_one_size(details['input_size'])}, batch {details['batch']}. "
        f"All took turns in one run; the speed-up is over {first}: the median of the turns' ratios, the lowest and "
        "the highest.",
    ]
    comparison = details["comparison"]
    return [*notes, f"{comparison[0].upper()}{comparison[1:].rstrip('.')}.", *details["conditions"]["warnings"]]


def _one_size(height_width: list[int] | None) -> str:
    return "several sizes" if height_width is None else size(height_width)


def _estimates(record: Record) -> list[Row]:
    return [
        (
            entry["name"],
            figure(entry["infer_ms"]),
            *(figure(entry[name]) for name in ("gflop", "moved_mb", "device_floor_ms", "floor_ms")),
            NOTHING if entry["scaled_ms"] is None else " – ".join(map(figure, dict.fromkeys(entry["scaled_ms"]))),
            entry["assumption"],
        )
        for entry in record.details["estimates"]
    ]


def _stages_of_latency(record: Record) -> list[Row]:
    return [
        (entry["name"], stage, *(figure(times[name]) for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms")))
        for entry in record.details["contenders"]
        for stage, times in entry["stages"].items()
    ]


def _stages(record: Record) -> list[Row]:
    stages = record.details["stages"]
    total = {name: sum(stage[name] for stage in stages) for name in ("measured_ms", "floor_ms", "gflop", "moved_mb")}
    return [_stage(stage) for stage in stages] + [_stage({"name": "all", **total})]


def _stage(stage: dict[str, Any]) -> Row:
    seconds = stage["measured_ms"] / 1e3
    return (
        stage["name"],
        figure(stage["measured_ms"]),
        figure(stage["floor_ms"]),
        figure(stage["measured_ms"] / stage["floor_ms"]) if stage["floor_ms"] else NOTHING,
        figure(stage["gflop"]),
        figure(stage["moved_mb"]),
        figure(stage["gflop"] / seconds),
        figure(stage["moved_mb"] / 1e3 / seconds),
    )


def _stages_notes(record: Record) -> list[str]:
    peak = record.details["peak"]
    return [
        f"{record.details['engine']} by {record.details['library']}. No stage is faster than its floor: what its "
        f"arithmetic takes at {figure(peak['gflop_s'])} GFLOP/s, or its bytes at {figure(peak['gb_s'])} GB/s, "
        "whichever is longer."
    ]


def _loop(record: Record) -> list[Row]:
    details = record.details
    memory = details["memory"]
    frame, entry = size(details["frame_size"]), size(details["input_size"])
    rows: list[Row] = [
        (f"frames a second with a network that takes no time, {entry}", *_turns(details["loop"]["frames_per_s"])),
        (f"everything but the network, {frame} to {entry}, p50, ms", *_turns(details["host"]["p50_ms"])),
        (f"everything but the network, {frame} to {entry}, p95, ms", *_turns(details["host"]["p95_ms"])),
        (
            f"growth over {memory['frames']} frames, MB of {figure(memory['resident_mb'][0])}",
            f"{memory['growth_mb']:.2f}",
            NOTHING,
        ),
    ]
    if "engine" in details:
        engine, start = details["engine"], details["start"]
        rows += [
            (f"frames a second, {engine['backend']} alone", *_turns(engine["backend_frames_per_s"])),
            ("frames a second, the loop around it", *_turns(engine["loop_frames_per_s"])),
            ("ratio of the two", *_turns(engine["ratio"])),
            ("resident besides the engine, MB", figure(details["engine_memory"]["besides_engine_mb"]), NOTHING),
            ("start to first verdict, s", *_turns(start["verdict_s"])),
            ("start besides opening the engine, s", *_turns(start["besides_s"])),
        ]
    return rows


def _turns(found: dict[str, Any]) -> tuple[str, str]:
    return figure(found["median"]), f"{figure(min(found['turns']))} – {figure(max(found['turns']))}"


def _training(record: Record) -> list[Row]:
    details = record.details
    settings, theirs, ours = details["settings"], *(details["ways"][way] for way in ("straightforward", "stlm-edge"))
    steps = [record.measures[f"{way} step"].median for way in ("straightforward", "stlm-edge")]
    return [
        (
            f"{settings['architecture']} at {size(settings['image_size'])}, batch {settings['batch_size']}, teacher "
            f"{settings['teacher']} ({settings['teacher_weights']})",
            *map(figure, steps),
            spread(details["ratio"], min(details["ratios"]), max(details["ratios"])),
            f"{figure(theirs['phases_s']['teacher'])}, {figure(ours['phases_s']['teacher'])}",
            f"{100 * ours['anomalous_share']:.0f} %",
            f"{figure(theirs['memory_gb'])}, {figure(ours['memory_gb'])}",
        )
    ]


def _loader(record: Record) -> list[Row]:
    rates = record.details["pictures_per_s"]
    first = next(iter(rates.values()))
    return [(name, figure(rate), figure(rate / first)) for name, rate in rates.items()]


def _loader_notes(record: Record) -> list[str]:
    details = record.details
    return [
        f"Pseudo anomalies ({details['pseudo_anomalies']}) into {details['pictures']} pictures at {details['size']} x "
        f"{details['size']}, batches of {details['batch_size']}."
    ]


def _measures(record: Record) -> list[Row]:
    return [
        (
            name,
            figure(measure.median),
            f"{figure(min(measure.values))} – {figure(max(measure.values))}" if len(measure.values) > 1 else NOTHING,
            words(measure.unit),
            f"{measure.better}{', exact' if measure.is_exact else ''}",
        )
        for name, measure in record.measures.items()
    ]


_TIMES = ("p50, ms", "p95, ms", "p99, ms", "max, ms")

LATENCY = Kind(
    "Latency",
    "latency",
    ("", "by", *_TIMES, "pictures/s", "speed-up", "load, s", "first, ms", "memory, MB", "pictures"),
    _latency,
    _latency_notes,
)
LATENCY_STAGES = Kind("Latency by stage", "latency", ("", "stage", *_TIMES), _stages_of_latency)
ESTIMATES = Kind(
    "Estimates for the paper's GPU, an RTX 3090: computed, not measured",
    "latency",
    (
        *("", "network here, measured, ms", "GFLOP", "MB moved", "floor here, ms", "floor there, ms"),
        *("estimated there, ms", "assumption"),
    ),
    _estimates,
)
STAGES = Kind(
    "Stages beside their floor",
    "stages",
    ("stage", "measured, ms", "floor, ms", "times the floor", "GFLOP", "MB moved", "GFLOP/s", "GB/s"),
    _stages,
    _stages_notes,
)
LOOP = Kind("The camera line's loop", "loop", ("", "median", "turns"), _loop)
TRAINING = Kind(
    "A training step",
    "training",
    (
        "training",
        "authors' way, s a step",
        "here",
        "ratio",
        "of that the teacher, there and here",
        "pictures with a pseudo anomaly",
        "GB, there and here",
    ),
    _training,
)
LOADER = Kind("The loader", "loader", ("loader", "pictures/s", "ratio"), _loader, _loader_notes)
MEASURES = Kind("Measures", None, ("measure", "median", "turns", "unit", "better"), _measures)
