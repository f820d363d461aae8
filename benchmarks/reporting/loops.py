"""Tables of what goes round: the camera line's loop, a training's steps, its loader; and measures of any benchmark."""

from __future__ import annotations

from typing import Any

from benchmarks.record import Record
from benchmarks.reporting.tables import NOTHING, Kind, Row, figure, size, spread, words


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


LOOP = Kind("The camera line's loop", ("loop",), ("", "median", "turns"), _loop)
TRAINING = Kind(
    "A training step",
    ("training",),
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
LOADER = Kind("The loader", ("loader",), ("loader", "pictures/s", "ratio"), _loader, _loader_notes)
MEASURES = Kind("Measures", (), ("measure", "median", "turns", "unit", "better"), _measures)
