"""Command-line options for every setting of a training run, taken from the dataclass that owns them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import click

from stlm_edge.cli import REGEX, Words
from train.config import HINTS, TrainConfig
from train.values import type_of

SAID = {"groups": Words("file", expected="a CSV file with the columns picture and part"), "group_by": REGEX}
"""Settings whose empty text means that nobody said it, which no flag does."""

Command = TypeVar("Command", bound=Callable[..., Any])


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
        kind = SAID.get(entry.name) or type_of(HINTS[entry.name])
        option = click.option(flag, entry.name, default=None, type=kind, help=entry.metadata["help"])
        command = option(command)
    return command
