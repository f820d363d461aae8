"""The camera program: read, inspect, vote, draw, write.

stlm camera --engine stlm.plan --source 0 --output display:// --output events.jsonl
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import click
from click.core import ParameterSource

from runtime.control import Trigger
from runtime.options import READS, SOURCE_VARIABLE, detector_options
from runtime.web.options import serve_options
from stlm_edge.cli import Number, run


@click.command()
@click.option(
    "--config",
    type=READS,
    help="Run the cameras of this YAML file, whose settings have the names of the other options; see docs/line.md.",
)
@click.option("--engine", type=READS, help="The .plan, .onnx or .xml file; its sidecar lies beside it.  [required]")
@click.option(
    "--source",
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
    multiple=True,
    help="display://, a video (.mp4, .avi), events (.jsonl), a table (.csv), or a folder for pictures "
    "(FOLDER?only=anomalies&limit=5GB, FOLDER?what=raw as in docs/keep.md); each "
    "part's result for the machine by modbus://ADDRESS:1502, "
    "opcua://ADDRESS:4840 or gpio://CHIP/LINE, for other programs by mqtt://BROKER/TOPIC or https://SERVER/PATH "
    "(docs/line.md); may be given several times.",
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
@click.option(
    "--shadow",
    metavar="ENGINE[?every=N]",
    help="Have this engine look at one frame in N (10 unless given) beside the other, and tell where their verdicts "
    "differ. It decides nothing.",
)
@click.option("--frames", type=click.IntRange(min=1), help="Stop after this many.")
@click.option(
    "--summary",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the summary here, as JSON.",
)
@click.option("--recipes", type=READS, help="A YAML file of recipes, to be changed while the line runs.")
@click.option("--recipe", metavar="NAME", help="Begin with this one of --recipes, by its name or number.")
@click.option(
    "--recipe-file",
    metavar="FILE",
    help="Begin with the one that the first line of this file names, and read it again at each SIGUSR1.",
)
@serve_options("a live page")
@click.pass_context
def command(context: click.Context, /, config: Path | None, recipes: Path | None, **options: Any) -> None:
    """Inspect what a source delivers until it ends, --frames is reached, or Ctrl-C; then print a summary."""
    from runtime.camera_run import run_cameras
    from runtime.config import CameraConfig, read_line, read_recipes

    if config is None:
        known = () if recipes is None else read_recipes(recipes, command=command)
        camera = CameraConfig(**options, recipes=known)
        if camera.engine is None and not known:
            raise click.UsageError("Missing option '--engine'.")
        run_cameras([camera], reads=[] if recipes is None else [recipes])
        return
    given = [
        option.opts[0]
        for option in context.command.params
        if option.expose_value
        and option.name not in (None, "config")
        and context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(f"found {given[0]} beside --config, expected it in {config}; write it there")
    run_cameras(read_line(config, command=command), reads=[config])


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
