"""Frozen dataclasses out of JSON, with one clear line for whatever is not as `dataclasses.asdict` writes it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from stlm_edge.errors import SpecError

MAY_LACK = {"may_lack": True}
"""Marks a field that records lack if they were written before there was such a field."""


def formerly(*, name: str | None = None, values: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Marks a field that older records call `name`, or in which they write other words: old → new."""
    return {"old_name": name, "old_values": dict(values or {})}


def parse(text: str) -> dict[str, Any]:
    """A JSON object. Raises `SpecError`."""
    try:
        return as_object(json.loads(text))
    except json.JSONDecodeError as error:
        raise SpecError(f"not JSON ({error}); export the engine again") from None


def as_object(value: object) -> dict[str, Any]:
    """`value` itself, if it is an object. Raises `SpecError`."""
    if not isinstance(value, dict):
        raise SpecError(f"found {type(value).__name__} where an object was expected; export the engine again")
    return value


T = TypeVar("T")


def build(kind: type[T], data: dict[str, Any]) -> T:
    """Make a dataclass of what JSON holds, and those inside it. Raises `SpecError`."""
    entries = dataclasses.fields(kind)  # type: ignore[arg-type]  # every kind is a dataclass
    data = _in_new_words(entries, data)
    names = {entry.name for entry in entries}
    required = {entry.name for entry in entries if not entry.metadata.get("may_lack")}
    unknown, missing = sorted(set(data) - names), sorted(required - set(data))
    if unknown or missing:
        raise SpecError(
            f"{kind.__name__} has unknown keys {unknown} and lacks {missing}; export with this version of stlm-edge"
        )
    hints = get_type_hints(kind)
    try:
        return kind(**{name: _value(hints[name], value) for name, value in data.items()})
    except (TypeError, ValueError) as error:
        raise SpecError(f"{kind.__name__} cannot be read ({error}); export with this version of stlm-edge") from None


def _in_new_words(entries: tuple[dataclasses.Field[Any], ...], data: dict[str, Any]) -> dict[str, Any]:
    """`data` as it would be written today, see `formerly`."""
    new_names = {entry.metadata["old_name"]: entry.name for entry in entries if entry.metadata.get("old_name")}
    renamed = {new_names.get(name, name): value for name, value in data.items()}
    for entry in entries:
        value = renamed.get(entry.name)
        if isinstance(value, str):
            renamed[entry.name] = entry.metadata.get("old_values", {}).get(value, value)
    return renamed


def _value(hint: Any, value: Any) -> Any:
    """What JSON has as `value`, as the type `hint` wants it: objects as dataclasses, lists as tuples."""
    if get_origin(hint) is UnionType:
        return None if value is None else _value(next(arm for arm in get_args(hint) if arm is not type(None)), value)
    if dataclasses.is_dataclass(hint):
        return build(hint, as_object(value))  # type: ignore[arg-type]  # a class, not an instance
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise TypeError(f"found {type(value).__name__} where a list was expected")
        return tuple(_value(get_args(hint)[0], entry) for entry in value)
    if hint in (int, float, str, bool) and not isinstance(value, (int, float) if hint is float else hint):
        raise TypeError(f"found {value!r} where {hint.__name__} was expected")
    return value
