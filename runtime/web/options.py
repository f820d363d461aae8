"""The options by which a program is told to serve a page; nothing is loaded here that only a server needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Serving:
    """Where a server listens and who is let in.

    Attributes:
        address: `ADDRESS:PORT`; of IPv6 in brackets. Port 0 is any that is free.
        token: a file with the token; None for the user's own, see `runtime.web.guard`. One that is named is asked for
            on loopback as well.
        cert, key: PEM of a certificate and its key, without a password; None for a connection that is not encrypted.
    """

    address: str
    token: Path | None = None
    cert: Path | None = None
    key: Path | None = None


def serve_options(what: str, *, default: str | None = None) -> Callable[[Command], Command]:
    """Give a command `--serve`, `--serve-token`, `--serve-cert` and `--serve-key`; make a `Serving` of their values.

    Args:
        what: is served, for the help.
        default: of the address; None serves nothing unless it is asked for.
    """
    file = click.Path(path_type=Path, dir_okay=False)
    options = (
        click.option(
            "--serve",
            metavar="ADDRESS:PORT",
            default=default,
            show_default=default is not None,
            help=f"Serve {what} there: 127.0.0.1:8080 for this machine alone, 0.0.0.0:8080 for whoever has the token.",
        ),
        click.option(
            "--serve-token",
            type=file,
            help="The file with the token, made if it is not there; asked for on this machine too.  [default: "
            "page-token in the user's state folder, for other machines alone]",
        ),
        click.option("--serve-cert", type=file, help="Serve by https, with this certificate (PEM)."),
        click.option("--serve-key", type=file, help="Its key (PEM, without a password), if it is in another file."),
    )

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add
