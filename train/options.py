"""Command-line options for every setting of a training run, taken from the dataclass that owns them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import click

from stlm_edge.cli import Number
from train.config import HINTS, TrainConfig
from train.old_settings import OLD_KINDS, TYPED_KINDS
from train.values import type_of

logger = logging.getLogger(__name__)


class Kinds(click.ParamType[str]):
    """Kinds of pseudo anomalies, joined with +."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        kinds = value.split("+")
        for kind in TYPED_KINDS.keys() & set(kinds):
            logger.info(
                "pseudo anomalies %s are %s, as in the field; what older versions called %s is %s",
                kind,
                TYPED_KINDS[kind],
                kind,
                OLD_KINDS[kind],
            )
        return "+".join(TYPED_KINDS.get(kind, kind) for kind in kinds)


SAID: dict[str, click.ParamType[str]] = {
    "pseudo_anomalies": Kinds(),
}
"""Settings that a flag takes otherwise than a file: `nsa` is another word in files."""

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


def executor_options(command: Command) -> Command:
    """Add what says where a grid's runs are computed."""
    jobs = click.option(
        "--jobs",
        type=click.IntRange(1, 1024),
        help="So many runs at once on this machine, each in a process of its own; they share cores and GPUs.  "
        "[default: 1]",
    )
    ray = click.option(
        "--ray",
        "ray_address",
        metavar="auto|HOST:PORT",
        help="Compute the runs as tasks of Ray: of the cluster at HOST:PORT, or of one that is started here and ended "
        "with the grid.",
    )
    gpus = click.option(
        "--gpus-per-run",
        type=Number(min=0),
        help="With --ray, the share of a GPU that a run takes, such as 0.5.  [default: 1 where a node has GPUs]",
    )
    return jobs(ray(gpus(command)))
