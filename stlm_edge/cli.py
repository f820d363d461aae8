"""What the command lines of all programs share: exit codes, logging, and one line for each error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence

import click

from stlm_edge.errors import StlmError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

OUR_LOGGERS = ("__main__", "stlm_edge", "train", "export", "runtime", "benchmarks")


class Choice(click.Choice[str]):
    """One of several words; those in `old` are taken too, for scripts that still say them, and mean those of today."""

    def __init__(self, choices: Sequence[str], *, old: Mapping[str, str]) -> None:
        super().__init__(choices)
        self._old = old

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(self._old.get(value, value), param, ctx)


METHOD = Choice(["quantile", "f1"], old={"good": "quantile", "good-quantile": "quantile", "f1-optimal": "f1"})
"""How a threshold is chosen: from good pictures alone, or F1-optimal on labelled ones."""


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
