"""What the command lines of all programs share: exit codes, logging, and one line for each error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import click

from stlm_edge.errors import StlmError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

OUR_LOGGERS = ("__main__", "stlm_edge", "train", "export", "runtime", "benchmarks")


def run(command: click.Command, argv: Sequence[str] | None) -> int:
    """Run a click command as a program and return its exit code; the context's object is the arguments as given.

    0 done, 1 a `StlmError` printed as one line, 2 wrong usage, 130 interrupted.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s", force=True)
    for name in OUR_LOGGERS:  # libraries tell a user of these programs nothing below a warning
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        arguments = list(sys.argv[1:] if argv is None else argv)
        result = command.main(args=arguments, standalone_mode=False, obj=tuple(arguments))
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except StlmError as error:
        click.echo(f"error: {' '.join(str(error).split())}", err=True)
        return 1
    return result if isinstance(result, int) else 0
