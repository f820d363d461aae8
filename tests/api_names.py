"""Recorded names of a library's interface, and whether a module has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def dotted(names: Mapping[str, Mapping[str, list[str]]], *groups: str) -> list[str]:
    """`Owner.name` for all names of some groups; an empty owner is the module itself."""
    return [
        f"{owner}.{name}".removeprefix(".")
        for group in groups
        for owner, members in names[group].items()
        for name in members
    ]


def find(module: Any, name: str) -> bool:
    """Whether `module` has a dotted name."""
    for part in name.split("."):
        if not hasattr(module, part):
            return False
        module = getattr(module, part)
    return True


def missing(module: Any, names: Iterable[str]) -> list[str]:
    """Those of the dotted names that `module` has not."""
    return [name for name in names if not find(module, name)]
