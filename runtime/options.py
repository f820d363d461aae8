"""Options that all programs which inspect pictures have in common, and the detector that they ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from runtime.backends import BACKEND_CHOICES, BackendChoice
from runtime.watchdog import INFERENCE_S, Watchdog
from stlm_edge.cli import Number

if TYPE_CHECKING:
    from runtime.detector import Detector

READS = click.Path(path_type=Path)

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--backend", type=click.Choice(BACKEND_CHOICES), default="auto", show_default=True, help="What runs the engine."
    ),
    click.option("--threshold", type=Number(), help="Takes the place of the engine's own."),
    click.option("--roi", type=READS, help="Inspect only this area: a file of LabelMe with polygons or rectangles."),
    click.option("--ignore", type=READS, help="Leave this area out: a picture that is white there."),
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


def open_detector(
    engine: Path,
    *,
    backend: BackendChoice,
    threshold: float | None,
    roi: Path | None,
    ignore: Path | None,
    tile: str | None,
    watchdog: Watchdog | None = None,
) -> Detector:
    """Open what the options name; the caller closes it.

    Raises `ConfigError`, `ImageError` for area and tile; otherwise see `Detector.open`.
    """
    from runtime.area import read_area
    from runtime.detector import Detector
    from runtime.tiling import parse_tile

    area = read_area(roi=roi, ignore=ignore)
    size = None if tile is None else parse_tile(tile)
    return Detector.open(engine, backend=backend, threshold=threshold, area=area, tile=size, watchdog=watchdog)
