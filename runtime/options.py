"""Options that all programs which inspect pictures have in common, and the detector that they ask for."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from runtime.backends import BACKEND_CHOICES, BackendChoice
from runtime.watchdog import INFERENCE_S, Watchdog
from stlm_edge.cli import Number
from stlm_edge.errors import ConfigError, shown
from stlm_edge.spec import PIXEL_LIMIT_VARIABLE, Threshold

if TYPE_CHECKING:
    from runtime.detector import Detector, EngineOpener

READS = click.Path(path_type=Path)

SOURCE_VARIABLE = "STLM_SOURCE"
"""Of the environment: a source, where no option names one."""

_LONGEST_LINE = 1 << 16

_NUMBER = r"\d+(?:\.\d*)?|\.\d+"

Command = TypeVar("Command", bound=Callable[..., Any])


def _limit_pixels(_: click.Context, __: click.Parameter, value: float | None) -> None:
    """By the environment, where all programs look and which their own processes inherit."""
    if value is not None:
        os.environ[PIXEL_LIMIT_VARIABLE] = str(value)


_OPTIONS = (
    click.option(
        "--backend", type=click.Choice(BACKEND_CHOICES), default="auto", show_default=True, help="What runs the engine."
    ),
    click.option("--threshold", type=Number(), help="Takes the place of the engine's own."),
    click.option(
        "--unclear",
        metavar="LOW:HIGH",
        help="What scores from LOW to below HIGH is unclear, from HIGH on anomalous; in the place of the engine's own.",
    ),
    click.option("--roi", type=READS, help="Inspect only this area: a file of LabelMe with polygons or rectangles."),
    click.option("--ignore", type=READS, help="Leave this area out: a picture that is white there."),
    click.option(
        "--max-megapixels",
        type=Number(min=0, min_open=True),
        expose_value=False,
        callback=_limit_pixels,
        help="Refuse larger pictures before they are decoded; also the variable STLM_MAX_MEGAPIXELS.  [default: 100]",
    ),
    click.option("--tile", metavar="HEIGHTxWIDTH", help="Cut larger frames into overlapping tiles of so many pixels."),
    click.option(
        "--inference-timeout",
        type=Number(min=0, min_open=True),
        default=INFERENCE_S,
        show_default=True,
        metavar="SECONDS",
        help="An inference that takes longer for a picture, or opening the engine five times as long, ends the program "
        "with exit code 1.",
    ),
)


def detector_options(command: Command) -> Command:
    """Give a command the options that `open_detector` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def chosen_source(uri: str | None, file: str | None) -> str:
    """The source that was given by an option, by the first line of a file (`-`: of stdin) or by the environment.

    The list of processes shows the arguments of a program to everybody, so an address with a password is better off in
    a file.

    Raises:
        click.UsageError: if there is none, or one by either option.
        ConfigError: if the file cannot be read, or its first line is empty.
    """
    if uri is not None and file is not None:
        raise click.UsageError("found --source and --source-file, expected one of them; leave the other out")
    if file is not None:
        return first_line(file, expected="a source", example="rtsp://camera/line")
    found = uri if uri is not None else os.environ.get(SOURCE_VARIABLE)
    if not found:
        raise click.UsageError(
            f"found no source, expected --source, --source-file or {SOURCE_VARIABLE} in the environment; give one"
        )
    return found


def first_line(file: str, *, expected: str, example: str) -> str:
    """The first line of a file (`-`: of stdin), for what no list of processes is to show.

    Args:
        expected, example: what it should be, for people.
    Raises:
        ConfigError: if it cannot be read, or is empty.
    """
    if file == "-" and sys.stdin is None:
        raise ConfigError(f"found standard input closed, expected {expected} in its first line; name a file instead")
    try:
        if Path(file).is_fifo() and not Path(file).is_relative_to("/dev"):  # a line would wait for somebody to write
            raise OSError(errno.EINVAL, "it is a named pipe")
        with click.open_file(file, encoding="utf-8-sig") as stream:
            line: str = stream.readline(_LONGEST_LINE).strip()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigError(f"{file} cannot be read ({reason}), expected {expected} in its first line") from None
    if not line:
        raise ConfigError(f"found nothing in the first line of {file}, expected {expected}, such as {example}")
    return line


def open_detector(
    engine: Path,
    *,
    backend: BackendChoice,
    threshold: float | None,
    unclear: str | None,
    roi: Path | None,
    ignore: Path | None,
    tile: str | None,
    watchdog: Watchdog | None = None,
    side_by_side: bool = False,
    opener: EngineOpener | None = None,
) -> Detector:
    """Open what the options name; the caller closes it.

    Raises `ConfigError`, `ImageError` for thresholds, area and tile; otherwise see `Detector.open`.
    """
    from runtime.area import read_area
    from runtime.detector import Detector
    from runtime.tiling import parse_tile

    by_hand = threshold if unclear is None else _two_thresholds(unclear, threshold)
    area = read_area(roi=roi, ignore=ignore)
    size = None if tile is None else parse_tile(tile)
    detector = Detector.open(
        engine,
        backend=backend,
        threshold=by_hand,
        area=area,
        tile=size,
        watchdog=watchdog,
        side_by_side=side_by_side,
        opener=opener,
    )
    leave_cores(detector)
    return detector


def leave_cores(detector: Detector) -> None:
    """Keep OpenCV to one thread, in the whole program, where the network needs the processor too.

    Its other threads spin for a while after each resize, and the network's wait for one another: of a network of 8 ms
    on two cores, that takes a fifth of the frames.
    """
    import cv2

    from runtime.backends.base import PROCESSOR

    if detector.device == PROCESSOR:
        cv2.setNumThreads(1)


def _two_thresholds(text: str, threshold: float | None) -> Threshold:
    if threshold is not None:
        raise ConfigError(
            f"found --threshold {threshold:g} and --unclear {text}, which gives both thresholds; leave one of them out"
        )
    found = re.fullmatch(rf"({_NUMBER}):({_NUMBER})", text.strip())
    if found is None or not float(found[1]) < float(found[2]):
        raise ConfigError(f"found {shown(text)} for --unclear, expected two rising scores; for example 0.3:0.6")
    return Threshold(value=float(found[2]), unclear=float(found[1]), method="manual", images=0)
