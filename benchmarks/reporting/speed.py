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
        f"Milliseconds for each picture, from the picture to the verdict; {details['pictures']}, input "
        f"{_one_size(details['input_size'])}, batch {details['batch']}. "
        f"All took turns in one run; the speed-up is over {first}: the median of the turns' ratios, the lowest and "
        "the highest.",
    ]
    said = [*([details["comparison"]] if record.benchmark == "latency" else []), *details["conditions"]["warnings"]]
    return [*notes, *(f"{sentence[0].upper()}{sentence[1:].rstrip('.')}." for sentence in said)]


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
    rows = []
    for entry in record.details["contenders"]:
        times = entry["stages"]
        if unknown := set(times) - set(_PARTS):
            raise ValueError(f"stages {sorted(unknown)}, expected some of {_PARTS}")
        rows.append((entry["name"], *(_middle_and_late(times[part]) if part in times else NOTHING for part in _PARTS)))
    return rows


def _middle_and_late(times: dict[str, float]) -> str:
    return f"{figure(times['p50_ms'])}, {figure(times['p95_ms'])}"


def _gpu(record: Record) -> list[Row]:
    rows: list[Row] = []
    for part in record.details["parts"]:
        contenders = part.get("contenders") or []
        for entry in contenders:
            ratio = entry["speed_up"]
            faster = spread(ratio["median"], ratio["low"], ratio["high"])
            rows.append((part["name"], entry["name"], figure(entry["infer_ms"]), figure(entry["p50_ms"]), faster))
        if not contenders:
            rows.append((part["name"], part["status"], NOTHING, NOTHING, NOTHING))
    return rows


def _gpu_notes(record: Record) -> list[str]:
    parts = record.details["parts"]
    return [f"{part['name']} {part['status']}: {part['reason'].rstrip('.')}." for part in parts if part["reason"]]


def _stages(record: Record) -> list[Row]:
    stages = record.details["stages"]
    columns = {name: [stage[name] for stage in stages] for name in ("measured_ms", "floor_ms", "gflop", "moved_mb")}
    total = {name: None if None in values else sum(values) for name, values in columns.items()}
    return [_stage(stage) for stage in stages] + [_stage({"name": "all", **total})]


def _stage(stage: dict[str, Any]) -> Row:
    measured_ms, floor_ms, gflop, moved_mb = (stage[n] for n in ("measured_ms", "floor_ms", "gflop", "moved_mb"))
    return (
        stage["name"],
        figure(measured_ms),
        figure(floor_ms),
        figure(measured_ms / floor_ms) if floor_ms else NOTHING,
        figure(gflop),
        figure(moved_mb),
        NOTHING if gflop is None else figure(1e3 * gflop / measured_ms),
        NOTHING if moved_mb is None else figure(moved_mb / measured_ms),
    )


def _stages_notes(record: Record) -> list[str]:
    engine, peak = f"{record.details['engine']} by {record.details['library']}.", record.details["peak"]
    if peak is None:
        return [f"{engine} The peaks of this device are not known, so there is no floor."]
    return [
        f"{engine} A floor is what arithmetic takes at {figure(peak['gflop_s'])} GFLOP/s, or bytes at "
        f"{figure(peak['gb_s'])} GB/s, whichever is longer; what is still in a cache can be faster."
    ]


_PARTS = ("prepare", "upload", "infer", "download", "decide", "total")
"""Of the way from a frame in memory to its verdict."""

_TIMES = ("p50, ms", "p95, ms", "p99, ms", "max, ms")

LATENCY = Kind(
    "Latency",
    ("latency", "gpu.deployment"),
    ("", "by", *_TIMES, "pictures/s", "speed-up", "load, s", "first, ms", "memory, MB", "pictures"),
    _latency,
    _latency_notes,
)
LATENCY_STAGES = Kind(
    "Latency by stage: p50, p95, ms",
    ("latency", "gpu.deployment"),
    ("", *_PARTS),
    _stages_of_latency,
    lambda _: ["Infer is the network alone; the others are the host's work and the copies, which total has too."],
)
GPU = Kind(
    "All in one call on a GPU",
    ("gpu",),
    ("part", "", "infer p50, ms", "total p50, ms", "speed-up"),
    _gpu,
    _gpu_notes,
)
ESTIMATES = Kind(
    "Estimates for the paper's GPU, an RTX 3090: computed, not measured",
    ("latency",),
    (
        *("", "network here, measured, ms", "GFLOP", "MB moved", "floor here, ms", "floor there, ms"),
        *("estimated there, ms", "assumption"),
    ),
    _estimates,
)
STAGES = Kind(
    "Stages beside their floor",
    ("stages", "gpu.stages"),
    ("stage", "measured, ms", "floor, ms", "times the floor", "GFLOP", "MB moved", "GFLOP/s", "GB/s"),
    _stages,
    _stages_notes,
)
