"""Bars on a terminal, by click, which every install has; what is logged or piped to a file has none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import click

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
