"""Inspected frames to write, and small disks to fill."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from runtime.detector import Anomaly, Latency
from runtime.inspection import Fault, FrameLatency, Inspection
from runtime.part import Part, PartVerdict
from runtime.regions import Region
from runtime.sinks import FrameSink, SinkContext, open_sink
from runtime.sources import Frame
from stlm_edge.imaging import Image

ENGINE = "ab" * 32
LATENCY = FrameLatency(
    capture_ms=1,
    wait_ms=2,
    prepare_ms=3,
    upload_ms=4,
    infer_ms=5,
    download_ms=6,
    decide_ms=7.00049,
    total_ms=28,
)

NOISE = np.random.default_rng(0).integers(0, 256, (960, 1280, 3), np.uint8)
"""Cannot be compressed: a JPEG of it takes more than a MiB."""


def sink_for(uri: str | Path, *, fps: float | None = None) -> FrameSink:
    return open_sink(str(uri), context=SinkContext(engine_sha256=ENGINE, fps=fps, has_parts=True))


def inspection(
    index: int = 0,
    *,
    image: Image | None = None,
    label: str | None = None,
    score: float = 0.75,
    regions: tuple[Region, ...] = (),
    fault: Fault | None = None,
    alarm: bool = False,
    timestamp_s: float | None = None,
    picture: Callable[[], Image] | None = None,
) -> Inspection:
    """A frame with its verdict at a threshold of 0.5; drawn, it is its image alone."""
    drawn = np.full((96, 192, 3), 60, np.uint8) if image is None else image
    captured_s = time.monotonic() if timestamp_s is None else timestamp_s
    anomaly_map = np.zeros((8, 8), np.float32)
    anomaly = Anomaly(score, score >= 0.5, anomaly_map, drawn.shape[:2], Latency(3, 5, 4, 6, 7), 0.5)
    object.__setattr__(anomaly, "regions", regions)
    return Inspection(
        frame=Frame(drawn, index, captured_s, "test://", label),
        anomaly=None if fault else anomaly,
        fault=fault,
        alarm=alarm,
        part=4,
        threshold=0.5,
        latency=LATENCY,
        picture=picture or (lambda: drawn),
    )


def part(
    number: int = 3, verdict: PartVerdict = "reject", *, worst: Inspection | None = None, part_id: str | None = None
) -> Part:
    """A part that was decided 12.5 ms after it began."""
    now_s = time.monotonic()
    return Part(number, part_id, verdict, 2, worst, None, now_s - 0.0125, now_s)


def never_drawn() -> Image:
    raise AssertionError("nobody looks at this picture")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a disk of so many KiB; needs root."""
    mounted: list[Path] = []

    def mount(kibibytes: int) -> Path:
        folder = tmp_path / "disk"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("this user may not mount a disk")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)
