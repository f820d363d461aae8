"""Bars on a terminal, by click, which every install has; what is logged or piped to a file has none."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import click

from stlm_edge.names import printable

T = TypeVar("T")

_STEPS = 1000


def counted(items: Iterable[T], *, total: int) -> Iterator[T]:
    """Hand on `items`, of which there are `total`, with a bar on a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    with click.progressbar(items, length=total, file=sys.stderr, show_pos=True) as bar:
        yield from bar


@contextmanager
def fraction_bar(title: str) -> Iterator[Callable[[float, str], None]]:
    """Gives what is told the fraction that is done, 0 … 1, and what is being done; it draws a bar on a terminal."""
    if not sys.stderr.isatty():
        yield lambda _fraction, _phase: None
        return
    with click.progressbar(length=_STEPS, label=title, file=sys.stderr, item_show_func=str) as bar:

        def show(fraction: float, phase: str) -> None:
            bar.update(round(_STEPS * fraction) - bar.pos, phase)
            bar.render_progress()

        yield show


@contextmanager
def live_lines() -> Iterator[Callable[[Sequence[str]], None]]:
    """Gives what draws lines in the place of those that it drew before, on a terminal; none are left at the end."""
    if not sys.stderr.isatty():
        yield lambda _lines: None
        return
    drawn = 0

    def show(lines: Sequence[str]) -> None:
        nonlocal drawn
        columns, rows = shutil.get_terminal_size()
        fitting = [printable(line)[: columns - 1] for line in lines[: rows - 1]]
        back = f"\x1b[{drawn}A" if drawn else ""
        click.echo(f"{back}\r\x1b[J" + "".join(f"{line}\n" for line in fitting), nl=False, err=True)
        drawn = len(fitting)

    try:
        yield show
    finally:
        show(())
