"""Inspect files and folders of pictures; go on where an earlier run was stopped.

stlm inspect stlm.plan pictures/ -o results/
"""

from __future__ import annotations

import hashlib
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.backends import BackendChoice
from runtime.options import READS, detector_options, open_detector
from stlm_edge.cli import INTERRUPTED, give_up, print_lines, run

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any

    from runtime.batch.loop import Counts, Overlays

logger = logging.getLogger(__name__)

_OVERLAYS = ("all", "anomalies", "none")


@click.command()
@click.argument("engine", type=READS)
@click.argument("files", nargs=-1, required=True, type=READS)
@click.option("-o", "--output", required=True, type=READS, help="Folder for scores and overlays.")
@click.option(
    "--overlays",
    type=click.Choice(_OVERLAYS),
    default="anomalies",
    show_default=True,
    help="Which pictures are drawn with what was found in them; those that are unclear go with the anomalies.",
)
@detector_options
@click.option("--restart", is_flag=True, help="Remove the results of an earlier run first, instead of going on.")
def command(
    engine: Path,
    files: tuple[Path, ...],
    output: Path,
    overlays: Overlays,
    threshold: float | None,
    unclear: str | None,
    backend: BackendChoice,
    roi: Path | None,
    ignore: Path | None,
    tile: str | None,
    inference_timeout: float,
    restart: bool,
) -> int:
    """Inspect FILES, pictures and folders with all below them, with ENGINE.

    The results are OUTPUT/scores.csv and OUTPUT/overlays. The same command goes on where an earlier run was stopped.
    """
    from runtime.batch.listing import list_pictures, overlay_names
    from runtime.batch.loop import BatchRun
    from runtime.batch.table import OVERLAYS, TABLE, RunSettings, ScoreTable
    from runtime.signals import StopSignals
    from runtime.watchdog import Watchdog
    from stlm_edge.errors import ImageError
    from stlm_edge.names import escaped

    listing = list_pictures(files, results=output)
    with (
        StopSignals() as stop,
        Watchdog(inference_timeout, on_hang=give_up) as watchdog,
        open_detector(
            engine,
            backend=backend,
            threshold=threshold,
            unclear=unclear,
            roi=roi,
            ignore=ignore,
            tile=tile,
            watchdog=watchdog,
            side_by_side=True,
        ) as detector,
    ):
        area, tile_size = detector.area, detector.tile
        settings = RunSettings(
            engine_sha256=detector.sidecar.engine.engine_sha256,
            threshold=detector.threshold.value,
            root=escaped(str(listing.root)),
            area=None
            if area is None
            else f"{escaped(area.source)} ({hashlib.sha256(area.mask.tobytes()).hexdigest()[:12]})",
            tile=None if tile_size is None else f"{tile_size[0]} x {tile_size[1]}",
            overlays=overlays,
            unclear=detector.threshold.unclear,
        )
        with ScoreTable(output, settings, restart=restart) as table:
            left = [picture for picture in listing.pictures if picture.name not in table.done]
            start_s = time.monotonic()
            with _progress(len(left)) as bar:
                batch = BatchRun(
                    detector,
                    table,
                    overlays=overlays,
                    folder=output / OVERLAYS,
                    # With those of earlier runs, whose pictures may be gone, so that none is written over.
                    overlay_of=overlay_names([*table.done, *(picture.name for picture in listing.pictures)]),
                    on_done=(lambda: bar.update(1)) if bar is not None else lambda: None,
                )
                batch.run(left, stop)
            table.put_in_order(picture.name for picture in listing.pictures)
    done = batch.counts.inspected + batch.counts.unreadable
    already = len(listing.pictures) - len(left)
    _report(batch.counts, table=output / TABLE, already=already, duration_s=time.monotonic() - start_s)
    if done < len(left):
        logger.warning("stopped with %d pictures left; go on with the same command", len(left) - done)
        return INTERRUPTED
    if batch.counts.unreadable:
        raise ImageError(
            f"{batch.counts.unreadable} of {len(listing.pictures)} pictures could not be read and have their reason in "
            f"{output / TABLE}; replace them and give the same command again"
        )
    return 0


def _progress(length: int) -> AbstractContextManager[Any]:
    """A bar for people; None where nobody sees it, or there is nothing to do."""
    if not (length and sys.stderr.isatty()):
        return nullcontext()
    return click.progressbar(length=length, label="inspecting", file=sys.stderr, show_pos=True)


def _report(counts: Counts, *, table: Path, already: int, duration_s: float) -> None:
    rate = (counts.inspected + counts.unreadable) / duration_s if duration_s > 0 else 0.0
    lines = [
        f"pictures inspected  {counts.inspected} in {duration_s:.1f} s, {rate:.1f} per second",
        f"anomalous           {counts.anomalous}",
        *([f"unclear             {counts.unclear}"] if counts.unclear else []),
        *([f"could not be read   {counts.unreadable}"] if counts.unreadable else []),
        *([f"done before         {already}"] if already else []),
        f"scores              {table}",
    ]
    print_lines(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
