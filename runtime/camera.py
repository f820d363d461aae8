"""The camera program: read, inspect, draw, write.

python -m runtime.camera --engine model.onnx --source 0 --output display:// --output events.jsonl
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.backends import BACKEND_CHOICES, BackendChoice
from stlm_edge.cli import run
from stlm_edge.files import write_text

if TYPE_CHECKING:
    from runtime.detector import Detector
    from runtime.sinks import FrameSink
    from runtime.sources import Frame
    from runtime.summary import RunRecorder, RunSummary


@click.command()
@click.option(
    "--engine",
    required=True,
    type=click.Path(path_type=Path),
    help="The .onnx or .xml file; its sidecar lies beside it.",
)
@click.option(
    "--source",
    "source_uri",
    required=True,
    help="A camera's index (0), a video, a picture, a folder, or "
    "test://?fps=10&defect-rate=0.2&seed=1&frames=100&size=512x512.",
)
@click.option(
    "--output",
    "output_uris",
    multiple=True,
    help="display://, a video (.mp4, .avi), events (.jsonl), or a folder for pictures; may be given several times.",
)
@click.option(
    "--backend", type=click.Choice(BACKEND_CHOICES), default="auto", show_default=True, help="What runs the engine."
)
@click.option("--threshold", type=float, help="Takes the place of the engine's own.")
@click.option("--frames", type=click.IntRange(min=1), help="Stop after this many.")
@click.option(
    "--summary",
    "summary_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the summary here, as JSON.",
)
def command(
    engine: Path,
    source_uri: str,
    output_uris: tuple[str, ...],
    backend: BackendChoice,
    threshold: float | None,
    frames: int | None,
    summary_file: Path | None,
) -> None:
    """Inspect what a source delivers until it ends, --frames is reached, or Ctrl-C; then print a summary."""
    from runtime.detector import Detector
    from runtime.signals import StopSignals
    from runtime.sinks import open_sink
    from runtime.sources import open_source
    from runtime.summary import RunRecorder

    with (
        StopSignals() as stop,
        Detector.open(engine, backend=backend, threshold=threshold) as detector,
        open_source(source_uri) as source,
        ExitStack() as closing,
    ):
        sinks = [
            closing.enter_context(
                open_sink(
                    uri,
                    threshold=detector.threshold.value,
                    engine_sha256=detector.sidecar.engine.engine_sha256,
                    fps=source.fps,
                )
            )
            for uri in output_uris
        ]
        recorder = RunRecorder()
        try:
            inspect_all(partial(stop.read, source), detector, sinks=sinks, recorder=recorder, limit=frames)
        finally:
            # Also after an error: what was inspected until then has happened.
            report(recorder.summary(source), file=summary_file)


def inspect_all(
    read: Callable[[], Frame | None],
    detector: Detector,
    *,
    sinks: Sequence[FrameSink],
    recorder: RunRecorder,
    limit: int | None,
) -> None:
    """Take frames from `read` to the sinks until it returns None, `limit` is reached or a sink asks for the end."""
    from runtime.overlay import draw_overlay
    from runtime.sinks import Inspection
    from runtime.timing import FrameRate

    rate = FrameRate()
    while (limit is None or recorder.frames < limit) and (frame := read()) is not None:
        anomaly = detector.inspect(frame.image)
        decided_s = time.monotonic()
        fps = rate.tick(decided_s)
        picture = cache(partial(draw_overlay, frame.image, anomaly, threshold=detector.threshold.value, fps=fps))
        for sink in sinks:
            sink.write(Inspection(frame, anomaly, picture))
        recorder.add(frame, anomaly, decided_s=decided_s, written_s=time.monotonic())
        if any(sink.wants_stop for sink in sinks):
            return


def report(summary: RunSummary, *, file: Path | None) -> None:
    """Print the summary, and write it to `file`. Raises `OutputError`."""
    for line in summary.lines():
        click.echo(line)
    if file is not None:
        write_text(file, summary.to_json())


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
