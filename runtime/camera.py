"""The camera program: read, inspect, vote, draw, write.

stlm camera --engine stlm.plan --source 0 --output display:// --output events.jsonl
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from runtime.backends import BackendChoice
from runtime.control import Trigger
from runtime.options import READS, SOURCE_VARIABLE, chosen_source, detector_options, open_detector
from stlm_edge.cli import Number, give_up, print_lines, run
from stlm_edge.errors import ImageError, OutputError
from stlm_edge.files import require_place, write_text

if TYPE_CHECKING:
    from runtime.summary import RunSummary

logger = logging.getLogger(__name__)


@click.command()
@click.option(
    "--engine",
    required=True,
    type=READS,
    help="The .plan, .onnx or .xml file; its sidecar lies beside it.",
)
@click.option(
    "--source",
    "source_uri",
    help="A camera (0, v4l2:///dev/video0, gige://SERIAL-OR-IP, u3v://SERIAL, genicam:CTI-FILE#SERIAL, csi://0, "
    "rtsp://…, http://… with MJPEG, gst:PIPELINE), a video, a picture, a folder, a folder that pictures are dropped "
    "into (FOLDER?watch=1), or test://?fps=10&defect-rate=0.2&seed=1&frames=100&size=512x512.",
)
@click.option(
    "--source-file",
    metavar="FILE",
    help="Take the source from the first line of this file (- for stdin), where no list of processes shows a password. "
    f"Without either option, from {SOURCE_VARIABLE} of the environment.",
)
@click.option("--width", type=click.IntRange(min=1), help="Of the frames; with --height.")
@click.option("--height", type=click.IntRange(min=1), help="Of the frames; with --width.")
@click.option("--fps", type=Number(min=0, min_open=True), help="Frames per second, at most.")
@click.option(
    "--rotate", type=click.Choice(["0", "90", "180", "270"]), default="0", show_default=True, help="Clockwise, degrees."
)
@click.option(
    "--output",
    "output_uris",
    multiple=True,
    help="display://, a video (.mp4, .avi), events (.jsonl), a table (.csv), or a folder for pictures "
    "(FOLDER?only=anomalies&limit=5GB); each part's result for the machine by modbus://ADDRESS:1502, "
    "opcua://ADDRESS:4840 or gpio://CHIP/LINE (docs/line.md); may be given several times.",
)
@detector_options
@click.option(
    "--votes",
    default="1/1",
    show_default=True,
    metavar="N/M",
    help="The part is anomalous if N of its last M frames are.",
)
@click.option("--release", type=Number(), help="An alarm lasts until the scores fall below this.")
@click.option(
    "--trigger",
    type=click.Choice(get_args(Trigger)),
    help="Judge every frame, in order: of a camera with a signal at its input, of one that is triggered by command (an "
    "output, or the space bar in the window), or of one that runs free.  [default: the newest frame]",
)
@click.option("--queue", type=click.IntRange(min=1), help="So many frames may wait, with --trigger.  [default: 8]")
@click.option("--part-frames", type=click.IntRange(min=1), help="A part has so many frames.")
@click.option("--part-gap", type=Number(min=0, min_open=True), help="So many seconds without a frame end a part.")
@click.option(
    "--deadline-ms",
    type=Number(min=0, min_open=True),
    help="After its trigger, or its first frame, a part has its result by then; it is missed if it is not judged.",
)
@click.option(
    "--camera-faults/--no-camera-faults",
    default=True,
    show_default=True,
    help="Report black, over-exposed and frozen pictures of a camera instead of inspecting them.",
)
@click.option("--frames", type=click.IntRange(min=1), help="Stop after this many.")
@click.option(
    "--summary",
    "summary_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the summary here, as JSON.",
)
def command(
    engine: Path,
    source_uri: str | None,
    source_file: str | None,
    width: int | None,
    height: int | None,
    fps: float | None,
    rotate: str,
    output_uris: tuple[str, ...],
    backend: BackendChoice,
    threshold: float | None,
    unclear: str | None,
    roi: Path | None,
    ignore: Path | None,
    tile: str | None,
    inference_timeout: float,
    votes: str,
    release: float | None,
    trigger: Trigger | None,
    queue: int | None,
    part_frames: int | None,
    part_gap: float | None,
    deadline_ms: float | None,
    camera_faults: bool,
    frames: int | None,
    summary_file: Path | None,
) -> None:
    """Inspect what a source delivers until it ends, --frames is reached, or Ctrl-C; then print a summary."""
    from runtime.drift_monitor import open_drift_monitor
    from runtime.faults import FaultDetector
    from runtime.line import Line
    from runtime.line_control import Control
    from runtime.parts import PartRule
    from runtime.signals import StopSignals
    from runtime.sinks import SinkContext, check_places, open_outputs
    from runtime.sources import SourceOptions, open_source, place_of
    from runtime.summary import RunRecorder
    from runtime.voting import PartVote, VotingRule
    from runtime.watchdog import OPENING, Watchdog

    uri = chosen_source(source_uri, source_file)
    if summary_file is not None:
        require_place(summary_file)
    given = (engine, f"{engine}.json", source_file, roi, ignore)
    check_places(
        output_uris,
        summary=summary_file,
        source=place_of(uri),
        reads=[Path(path) for path in given if path not in (None, "-")],
    )
    options = SourceOptions(width=width, height=height, fps=fps, rotate=int(rotate), trigger=trigger, queue=queue)
    votes_rule = VotingRule.parse(votes, release=release)
    part_rule = PartRule(
        trigger, frames=part_frames, gap_s=part_gap, deadline_s=None if deadline_ms is None else deadline_ms / 1e3
    )
    part_rule.require_votes(votes_rule)
    with ExitStack() as stack, ExitStack() as last:
        stop = stack.enter_context(StopSignals())
        watchdog = stack.enter_context(Watchdog(inference_timeout, on_hang=partial(give_up, last=last.close)))
        detector = stack.enter_context(
            open_detector(
                engine,
                backend=backend,
                threshold=threshold,
                unclear=unclear,
                roi=roi,
                ignore=ignore,
                tile=tile,
                watchdog=watchdog,
            )
        )
        vote = PartVote(votes_rule, threshold=detector.threshold.value)
        recorder = RunRecorder()
        with watchdog.watching("starting", pictures=OPENING):  # threads too, which may hang where memory is short
            source = stack.enter_context(open_source(uri, options))
            control = Control.of(part_rule, votes=votes_rule, source=source)
            context = SinkContext(
                engine_sha256=detector.sidecar.engine.engine_sha256,
                fps=source.fps,
                control=control,
                has_parts=part_rule.has_parts,
            )
            outputs = open_outputs(
                output_uris, context=context, drops=source.is_live, on_publish=partial(recorder.add_stage, "publish")
            )
        drift = open_drift_monitor(
            detector.spec,
            threshold=detector.threshold.value,
            whole_pictures=detector.area is None and detector.tile is None,
        )
        line = Line(
            source,
            detector,
            outputs=outputs,
            recorder=recorder,
            vote=vote,
            faults=FaultDetector() if camera_faults else None,
            drift=drift,
            control=control,
        )

        def summarise() -> RunSummary:
            return recorder.summary(source, output_drops=outputs.drops, output_failures=outputs.failures)

        def finish(_: object, error: BaseException | None, __: object) -> None:
            try:
                report(summarise(), file=summary_file)
            except OutputError as failure:
                if error is None:
                    raise
                logger.error("%s", failure)  # what ended the run is what the program should end with

        # From the last to the first, also after an error and where the engine hangs: what was inspected has happened.
        last.push(finish)
        last.push(outputs)
        last.callback(control.close)
        last.callback(source.close)  # closing the outputs may take a while, in which it would go on dropping frames
        line.run(stop, limit=frames)
    if source.skipped and not summarise().frames:
        raise ImageError(
            f"found {source.skipped} pictures and none that can be decoded, expected at least one; look at what is in "
            "--source"
        )


def report(summary: RunSummary, *, file: Path | None) -> None:
    """Write the summary to `file`, and print it also where that fails. Raises `OutputError`."""
    try:
        if file is not None:
            write_text(file, summary.to_json())
    finally:
        print_lines(summary.lines())


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
