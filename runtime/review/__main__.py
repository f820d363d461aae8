"""Review what a line kept in the browser, into a data set to train on.

stlm review kept/ --into data/bottle
"""

from __future__ import annotations

import getpass
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from runtime.web.options import Serving, serve_options
from stlm_edge.cli import Number, run

logger = logging.getLogger(__name__)

_LOOKED_S = 0.2
"""How often it is looked whether a signal came."""
_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("folder", type=_PATH)
@click.option(
    "--into",
    required=True,
    type=_PATH,
    metavar="DATASET/CATEGORY",
    help="The category's folder, in MVTec AD's layout; made if it is not there.",
)
@click.option("--reviewer", help="Who decides; the page has a field for it.  [default: the user's name]")
@click.option(
    "--test-share",
    type=Number(0, 1),
    default=0.2,
    show_default=True,
    help="Share of the good pictures that goes to test/good, the others go to train/good.",
)
@click.option("--labelme", is_flag=True, help="Write masks as LabelMe's JSON too, into DATASET/CATEGORY/labelme.")
@serve_options("the page", default="127.0.0.1:8081")
def command(
    folder: Path,
    into: Path,
    reviewer: str | None,
    test_share: float,
    labelme: bool,
    serve: str,
    serve_token: Path | None,
    serve_cert: Path | None,
    serve_key: Path | None,
) -> int:
    """Show the pictures in FOLDER, kept by a line or plain, one after another in the browser.

    What is decided of each is copied into a data set that 'stlm train' reads. Nothing in FOLDER is changed, and nothing
    is deleted: what is taken back moves to a hidden folder. The same command goes on where one was.
    """
    from runtime.review.app import MOST_BYTES, make_app
    from runtime.review.decisions import reviewer_named
    from runtime.review.review import Review
    from runtime.signals import StopSignals
    from runtime.web.server import WebServer
    from stlm_edge.cli import print_lines

    name = reviewer_named(reviewer if reviewer is not None else _user())
    serving = Serving(serve, token=serve_token, cert=serve_cert, key=serve_key)
    with StopSignals() as stop, Review(folder, into, test_share=test_share, labelme=labelme) as review:
        counts = review.counts()
        done = sum(counts[call] for call in ("good", "defect", "skip"))
        with WebServer(make_app(review, reviewer=name), serving, what="review", most_bytes=MOST_BYTES) as server:
            print_lines([f"{counts['open']} pictures to review, {done} decided: {server.url}"])
            while not stop.requested:
                time.sleep(_LOOKED_S)
        counts = review.counts()
    print_lines([f"good {counts['good']}, defects {counts['defect']}, skipped {counts['skip']}, open {counts['open']}"])
    return 0


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a bare user number
        return "reviewer"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
