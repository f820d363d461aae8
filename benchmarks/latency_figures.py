"""What `benchmarks.latency` says of what was measured: the entries of its record, and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np

from benchmarks.contenders.engine import STAGES
from benchmarks.turns import TOTAL, Timed

_QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "max_ms": 1.0}

CONTENTS = (
    "milliseconds for one picture. infer is the network with normalisation, up-sampling and score, copies left out; "
    "total is the clock on the wall from a frame in memory to its verdict: besides infer it has prepare (resize on the "
    "host), upload and download (to a GPU and back), decide, and what a library waits between them."
)


def entry(timed: Timed, *, first: Timed, batch: int) -> dict[str, Any]:
    """A contender in the record's `contenders`.

    Args:
        first: the contender that the speed-up is against.
        batch: pictures at once.
    """
    totals = timed.pooled()
    ratios = [theirs / own for theirs, own in zip(first.quantiles(0.5), timed.quantiles(0.5), strict=True)]
    return {
        "name": timed.name,
        **timed.facts,
        "load_s": timed.load_s,
        "first_ms": timed.first_ms,
        "before_mb": timed.before_mb,
        "opened_mb": timed.opened_mb,
        "running_mb": timed.running_mb or None,  # until all turns are over
        "peak_mb": timed.peak_mb or None,
        "gpu_mb": timed.gpu_mb,
        "runs": len(totals) * batch,
        "frames_per_s": 1e3 * len(totals) / sum(totals),
        "stages": {
            stage: {name: float(np.quantile(timed.pooled(stage), level)) for name, level in _QUANTILES.items()}
            for stage in STAGES
        },
        "samples_ms": [round(total, 2) for total in totals],
        "speed_up": {"median": median(ratios), "low": min(ratios), "high": max(ratios)},
    }


def tables(contenders: Sequence[dict[str, Any]]) -> list[str]:
    """The lines of both tables: times, and what stands behind them."""
    width = max(len(contender["name"]) for contender in contenders) + 2
    lines = [
        f"{'':<{width}}{'':<6}{'infer p50':>10}{'total p50':>11}{'p95':>9}{'p99':>9}{'max':>9}{'frames/s':>10}"
        f"{'speed-up':>10}  turn by turn"
    ]
    for contender in contenders:
        total, ratio = contender["stages"][TOTAL], contender["speed_up"]
        lines.append(
            f"{contender['name']:<{width}}{contender['precision']:<6}{contender['stages']['infer']['p50_ms']:>10.2f}"
            + f"{total['p50_ms']:>11.2f}"
            + "".join(f"{total[name]:>9.2f}" for name in ("p95_ms", "p99_ms", "max_ms"))
            + f"{contender['frames_per_s']:>10.3g}{ratio['median']:>10.2f}  {ratio['low']:.2f} to {ratio['high']:.2f}"
        )
    copies = [stage for stage in STAGES if stage not in ("infer", TOTAL)]
    lines += ["", f"{'':<{width}}" + "".join(f"{stage + ' p50':>14}" for stage in copies)]
    lines[-1] += f"{'load s':>9}{'first ms':>10}{'MB opened':>11}{'running':>9}{'peak':>9}{'GPU':>9}"
    for contender in contenders:
        lines.append(
            f"{contender['name']:<{width}}"
            + "".join(f"{contender['stages'][stage]['p50_ms']:>14.2f}" for stage in copies)
            + f"{contender['load_s']:>9.2f}{contender['first_ms']:>10.1f}"
            + f"{contender['opened_mb']:>11.0f}"
            + "".join(f"{_whole(contender[name]):>9}" for name in ("running_mb", "peak_mb", "gpu_mb"))
        )
    return lines


def notes(contenders: Sequence[dict[str, Any]]) -> list[str]:
    """What is to be known of single contenders, and of all of them together."""
    found = [f"{contender['name']}: {contender['note']}" for contender in contenders if contender["note"]]
    networks = {(contender["architecture"], *contender["input_size"]) for contender in contenders}
    if len(networks) > 1:
        listed = ", ".join(f"{name} at {height} x {width}" for name, height, width in sorted(networks))
        found.append(f"these are different networks ({listed}), so a speed-up is not that of a library alone")
    return found


def estimates(entries: Sequence[dict[str, Any]]) -> list[str]:
    """What the estimates of times on the paper's GPU say; contenders of whom the same is to be said share a line."""
    names: dict[str, list[str]] = {}
    for found in entries:
        names.setdefault(_estimate(found), []).append(found["name"])
    return [f"{', '.join(own)}: {text}" for text, own in names.items()]


def _estimate(found: dict[str, Any]) -> str:
    if found["floor_ms"] is None:
        return str(found["assumption"])
    text = f"{found['gflop']:.1f} GFLOP, computed floor on an RTX 3090 {found['floor_ms']:.3g} ms"
    if found["scaled_ms"] is not None:
        low, high = found["scaled_ms"]
        scaled = f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}"
        text += (
            f", here {found['device_floor_ms']:.3g} ms; ESTIMATE: infer takes {found['infer_ms']:.2f} ms here, so "
            f"{scaled} ms there"
        )
    return f"{text}; {found['assumption']}"


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
