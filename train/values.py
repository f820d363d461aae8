"""What the text of a setting means: on the command line and in YAML alike."""

from __future__ import annotations

import re
from typing import Any, get_args

import click

from stlm_edge.cli import Number
from stlm_edge.spec import Size


class SizeType(click.ParamType[Size]):
    """One side in pixels, or HEIGHTxWIDTH."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Size:  # noqa: ARG002
        if isinstance(value, tuple):
            return value[0], value[1]
        match = re.fullmatch(r"(\d+)(?: ?[xX×] ?(\d+))?", value, re.ASCII)
        if match is None:
            self.fail(f"{value!r} is no size, expected one number or HEIGHTxWIDTH, such as 256 or 512x768")
        return int(match[1]), int(match[2] or match[1])


class SeedsType(click.ParamType[tuple[int, ...]]):
    """Whole numbers, separated by commas."""

    name = "seeds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:  # noqa: ARG002
        if isinstance(value, tuple):
            return value
        if re.fullmatch(r"\d{1,18}(,\d{1,18})*", value, re.ASCII) is None:
            self.fail(f"{value!r} is no list of seeds, expected whole numbers such as 0,1,2")
        return tuple(int(seed) for seed in value.split(","))


class SeedCountType(SeedsType):
    """How many seeds, counted from 0, or which, separated by commas: 3 is 0,1,2."""

    MOST = 1000

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        seeds = super().convert(value, param, ctx)
        if isinstance(value, tuple) or "," in value:
            return tuple(dict.fromkeys(seeds))
        if not 1 <= seeds[0] <= self.MOST:
            self.fail(f"{value!r} is no number of trainings, expected 1 to {self.MOST}, or seeds such as 0,1,2")
        return tuple(range(seeds[0]))


def type_of(hint: Any) -> Any:
    """How the command line reads a setting with this annotation."""
    if hint == Size:
        return SizeType()
    choices = [choice for choice in get_args(hint) if isinstance(choice, str)]
    if choices:
        return click.Choice(choices)
    return {int: click.INT, float: Number(), bool: click.BOOL}.get(hint, click.STRING)


def understood(hint: Any, written: Any) -> Any:
    """What the command line would make of a text in YAML; what it would refuse stays as it is written.

    YAML's own guesses are not asked: by them 5e-4 is a text, `off` is false, 010 is 8 and 1:30 is 90.

    Args:
        written: a text; a size may also be a list of one or two of them.
    """
    if hint == Size and isinstance(written, list):
        return understood(hint, "x".join(map(str, written)))
    try:
        return type_of(hint).convert(written, None, None) if isinstance(written, str) else written
    except click.UsageError:
        return written
