"""Command-line options for every setting of a training run, taken from the dataclass that owns them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click

from stlm_edge.cli import Number
from stlm_edge.spec import Size
from train.config import HINTS, OLD_NAMES, TrainConfig

Command = TypeVar("Command", bound=Callable[..., Any])


class SizeType(click.ParamType[Size]):
    """One side in pixels, or HEIGHTxWIDTH."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Size:  # noqa: ARG002
        if isinstance(value, tuple):
            return value[0], value[1]
        match = re.fullmatch(r"(\d+)(?:x(\d+))?", value)
        if match is None:
            self.fail(f"{value!r} is no size, expected one number or HEIGHTxWIDTH, such as 256 or 512x768")
        return int(match[1]), int(match[2] or match[1])


class SeedsType(click.ParamType[tuple[int, ...]]):
    """Whole numbers, separated by commas."""

    name = "seeds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:  # noqa: ARG002
        if isinstance(value, tuple):
            return value
        if re.fullmatch(r"\d+(,\d+)*", value) is None:
            self.fail(f"{value!r} is no list of seeds, expected whole numbers such as 0,1,2")
        return tuple(int(seed) for seed in value.split(","))


def training_options(command: Command, *, without: tuple[str, ...] = ()) -> Command:
    """Add an option for each field of `TrainConfig`; one that is not given is None, so that presets show through.

    Args:
        without: fields that the command sets by itself.
    """
    for entry in reversed(dataclasses.fields(TrainConfig)):
        if entry.name in without:
            continue
        flag = "--" + entry.name.replace("_", "-")
        if HINTS[entry.name] is bool:
            flag = f"{flag}/--no-{flag.removeprefix('--')}"
        old = [f"--{name.replace('_', '-')}" for name, now in OLD_NAMES.items() if now == entry.name]
        option = click.option(flag, *old, entry.name, default=None, type=_type(entry.name), help=entry.metadata["help"])
        command = option(command)
    return command


def _type(name: str) -> Any:
    hint = HINTS[name]
    if hint == Size:
        return SizeType()
    choices = [choice for choice in get_args(hint) if isinstance(choice, str)]
    if choices:
        return click.Choice(choices)
    return {int: int, float: Number(), bool: bool}.get(hint, str)
