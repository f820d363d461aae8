"""Made-up records of every kind, small, in the formats that the benchmarks write."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.record import Device, Measure, Record, write

PROCESSOR = Device("Made-up processor (family 1, model 2)", ("avx2",), 2)
GPU = Device("Made-up processor (family 1, model 2)", ("avx2",), 8, gpu="Made-up GPU", compute_capability="sm86")

AREAS = {"image_auroc": 0.91, "pixel_auroc": 0.88, "aupro": 0.7, "pixel_ap": 0.4}


def subject(name: str, ms: float, *, speed_up: float, seed: int = 0, precision: str = "fp32") -> dict[str, Any]:
    rng = random.Random(seed)
    samples = [round(ms * rng.lognormvariate(0, 0.08), 2) for _ in range(200)]
    times = {"p50_ms": ms, "p95_ms": 1.2 * ms, "p99_ms": 1.3 * ms, "max_ms": 2 * ms}
    prepare = {"p50_ms": 1.0, "p95_ms": 1.5, "p99_ms": 2.0, "max_ms": 3.0}
    return {
        "name": name,
        "architecture": "stlm-tiny",
        "library": "library 1.0",
        "precision": precision,
        "device": "cpu",
        "input_size": [256, 256],
        "parameters": 1_000_000,
        "load_s": 0.5,
        "first_ms": 2 * ms,
        "before_mb": 90.0,
        "opened_mb": 120.0,
        "running_mb": 300.0,
        "peak_mb": 320.0,
        "gpu_mb": None,
        "runs": 200,
        "frames_per_s": 1e3 / ms,
        "stages": {"prepare": prepare, "total": times},
        "samples_ms": samples,
        "speed_up": {"median": speed_up, "low": 0.9 * speed_up, "high": 1.1 * speed_up},
    }


def latency() -> dict[str, Any]:
    return {
        "input_size": [256, 256],
        "frame_size": [480, 640],
        "batch": 1,
        "pictures": "4 drawn parts",
        "subjects": [
            subject("authors' way", 80, speed_up=1),
            subject("tiny fp32", 16, speed_up=5, seed=1),
            subject("tiny int8", 10, speed_up=8, seed=2, precision="int8"),
        ],
        "conditions": {"before": {}, "after": {}, "absent": [], "warnings": []},
        "comparison": "the paper has 20 ms on an RTX 3090; here it is another device, so the two cannot be compared",
        "estimates": [{"name": "tiny fp32", "infer_ms": 15.0, "scaled_ms": [11.0, 13.5]}],
    }


def accuracy() -> dict[str, Any]:
    drift = {"reference": "checkpoint", "map_max": 1e-3, "map_p99": 1e-4, "score_max": 2e-3, "rank": 0.9998}
    drift |= {"image_auroc": 0.0, "pixel_auroc": 0.0, "aupro": -0.001}
    entry = {"library": "library 1.0", "input_size": [256, 256], "image_ap": 0.93, **AREAS}
    return {
        "data": "made-up tiles",
        "images": 10,
        "engines": [
            {"name": "tiny fp32", "precision": "fp32", "drift": None, **entry},
            {"name": "tiny int8", "precision": "int8", "drift": drift, **entry},
        ],
    }


def point(side: int, precision: str, ms: float, area: float, **other: Any) -> dict[str, Any]:
    return {
        "name": f"{side} {precision}",
        "architecture": "stlm-tiny",
        "input_size": [side, side],
        "precision": precision,
        "p50_ms": ms,
        "p95_ms": 1.1 * ms,
        **AREAS,
        "image_auroc": area,
        "aupro": area - 0.2,
        "trained_at": [256, 256],
        "verified": True,
        "on_frontier": True,
        **other,
    }


def sizes() -> dict[str, Any]:
    return {
        "data": "made-up tiles",
        "device": "two cores",
        "points": [
            point(128, "fp32", 5, 0.8),
            point(256, "fp32", 15, 0.9),
            point(256, "int8", 11, 0.85, verified=False, on_frontier=False),
            point(512, "fp32", 60, 0.89, on_frontier=False),
        ],
        "advice": ["Take 256 fp32."],
    }


def peers() -> dict[str, Any]:
    entry = {
        "library": "anomalib",
        "backbone": "resnet18",
        "pretrained": None,
        "input_size": [256, 256],
        "parameters": 11_700_000,
        "train_minutes": 4.0,
        "p50_ms": 50.0,
        "p95_ms": 60.0,
        "running_mb": 500.0,
        "model_mb": 45.0,
        "note": "random backbone",
        **AREAS,
    }
    ours = {"library": "stlm-edge", "backbone": "TinyViT", "parameters": 1_000_000, "note": None, "p50_ms": 15.0}
    return {
        "data": "made-up tiles",
        "methods": [{"name": "PatchCore", **entry}, {"name": "STLM", **entry, **ours, "pixel_auroc": 0.9}],
    }


def demo() -> dict[str, Any]:
    times = {"infer": {"p50_ms": 20.4, "p95_ms": 26.7}}
    truth = {"defects_found": 38, "defects_missed": 2, "false_alarms": 1}
    return {
        "evaluation": {"kinds": {"chip": AREAS}, "overall": AREAS},
        "inspection": {"frames": 200, "truth": truth, "latency": times},
    }


def gpu() -> dict[str, Any]:
    entry = {"name": "half", "p50_ms": 4.0, "infer_ms": 3.5, "speed_up": {"median": 6.0, "low": 5.9, "high": 6.1}}
    done = {"name": "ways", "status": "done", "reason": None, "subjects": [entry]}
    return {"parts": [done, {"name": "engine", "status": "left out", "reason": "no time was left"}]}


DETAILS: dict[str, Callable[[], dict[str, Any]]] = {
    "latency": latency,
    "accuracy": accuracy,
    "sizes": sizes,
    "peers": peers,
    "demo": demo,
    "gpu": gpu,
}
"""By benchmark."""


def record(
    benchmark: str,
    details: dict[str, Any] | None = None,
    *,
    device: Device = PROCESSOR,
    is_complete: bool = True,
    changed: bool = False,
    measures: dict[str, Measure] | None = None,
) -> Record:
    return Record(
        benchmark=benchmark,
        command=f"python -m benchmarks.{benchmark} --json <{benchmark}.json>",
        date="2026-01-02T03:04:05+00:00",
        device=device,
        versions={"python": "3.11"},
        git={"commit": "0123456789abcdef", "changed": changed},
        is_complete=is_complete,
        measures={"something total p50": Measure("ms", "lower", (1.0, 2.0, 4.0))} if measures is None else measures,
        details=DETAILS[benchmark]() if details is None else details,
    )


def write_record(folder: Path, benchmark: str, details: dict[str, Any] | None = None, **other: Any) -> Path:
    """Write a made-up record and return its path; `name` is the file's."""
    path = folder / other.pop("name", f"{benchmark}.json")
    write(path, record(benchmark, details, **other))
    return path
