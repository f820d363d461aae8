"""The one way in for JSON and YAML that somebody hands over: read within limits, then checked against a dataclass.

A file may be damaged, of another program, or made to do harm. What comes out of here is finite, of the annotated types
and lengths, and small enough to be looked at; whatever is not gives one line.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from stlm_edge.errors import SpecError, StlmError, shown

MOST_BYTES = 64 << 20
"""Of a JSON file; LabelMe's hold a whole picture."""
MOST_YAML_BYTES = 64 << 10
"""Settings take three thousand, and YAML is read slowly."""
MOST_VALUES = 500_000
MOST_DEPTH = 64
MOST_ALIASES = 16
"""Of YAML's, which can stand for each other many times over."""

EXPORT_AGAIN = "export with this version of stlm-edge"

MAY_LACK = {"may_lack": True}
"""Marks a field that records lack if they were written before there was such a field."""


def formerly(*, name: str | None = None, values: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Marks a field that older records call `name`, or in which they write other words: old → new."""
    return {"old_name": name, "old_values": dict(values or {})}


@dataclass(frozen=True)
class Within:
    """Annotates a number of a record: from `low` to `high`, both included."""

    low: float
    high: float = math.inf

    def __str__(self) -> str:
        return f"at least {self.low:g}" if math.isinf(self.high) else f"{self.low:g} to {self.high:g}"


Count = Annotated[int, Within(0)]
Share = Annotated[float, Within(0, 1)]


class _WrongError(Exception):
    """What was found, and what was expected."""


@contextmanager
def _told(error: type[StlmError], remedy: str, where: str = "") -> Iterator[None]:
    try:
        yield
    except _WrongError as wrong:
        raise error(f"{where}{wrong}; {remedy}") from None
    except StlmError as objection:  # of a dataclass, which has a remedy of its own
        raise error(str(objection)) from None


def read_object(path: Path, *, error: type[StlmError] = SpecError, remedy: str = EXPORT_AGAIN) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        error: what to raise for whatever is wrong with it.
        remedy: the end of its message.
    Raises:
        FileNotFoundError: for the caller to say who writes such a file.
    """
    with _told(error, remedy, f"{path} "):
        return _object(_text(path, MOST_BYTES))


def read_settings(path: Path, *, error: type[StlmError], remedy: str) -> dict[str, Any]:
    """The settings by name in a YAML file, each as text; arguments and errors as for `read_object`."""
    with _told(error, remedy, f"{path} "):
        return _settings(_text(path, MOST_YAML_BYTES))


def parse(text: str, *, what: str, error: type[StlmError] = SpecError, remedy: str = EXPORT_AGAIN) -> dict[str, Any]:
    """The object in a JSON text that stood in another file.

    Args:
        what: it is, for the message.
        error, remedy: as for `read_object`.
    """
    with _told(error, remedy, f"{what} "):
        return _object(text)


T = TypeVar("T")


def build(
    kind: type[T],
    data: object,
    *,
    error: type[StlmError] = SpecError,
    remedy: str = EXPORT_AGAIN,
    what: str | None = None,
) -> T:
    """Make a dataclass of an object as `dataclasses.asdict` writes it, and those inside it.

    Args:
        kind: its annotations say which types, lengths, words and ranges (`Within`) are right.
        error, remedy: as for `read_object`.
        what: it is, for the message; the dataclass' name, unless it is given.
    """
    with _told(error, remedy):
        return _build(kind, data, what or kind.__name__)


def _text(path: Path, most: int) -> str:
    try:
        if path.is_fifo() and not path.is_relative_to("/dev"):  # whoever opens one waits for somebody to write
            raise _WrongError("is a named pipe, expected a file")
        with path.open("rb") as file:
            content = file.read(most + 1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # a path may hold a zero byte
        raise _WrongError(f"cannot be read ({getattr(error, 'strerror', None) or error}), expected a file") from None
    if len(content) > most:
        raise _WrongError(f"has more than {most} bytes, expected a file of the kind that this toolkit reads")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _WrongError(f"is not text in UTF-8 ({error.reason} at byte {error.start}), expected that") from None


def _object(text: str) -> dict[str, Any]:
    if not text.strip():
        raise _WrongError("is empty, expected a JSON object")
    if sum(text.count(mark) for mark in ",[{") > MOST_VALUES:
        raise _WrongError(f"holds more than {MOST_VALUES} values, expected a record")
    try:
        value = json.loads(text, object_pairs_hook=_distinct, parse_int=_whole)
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError as error:
        raise _WrongError(f"is not JSON ({error}), expected a JSON object") from None
    if not isinstance(value, dict):
        raise _WrongError(f"holds {_kind(value)}, expected a JSON object")
    _check_values(value)
    return value


def _settings(text: str) -> dict[str, Any]:
    import yaml  # of the extras `train` and `line`: the ground floor reads no YAML

    class Loader(yaml.SafeLoader):
        """Takes every value for the text that it is: what a setting is, its owner knows better than YAML 1.1."""

    Loader.yaml_implicit_resolvers = {"<": yaml.SafeLoader.yaml_implicit_resolvers["<"]}  # merges (<<: *name)
    try:
        # Events come one by one, so what is too deep is seen before anything is made of it.
        depth = aliases = 0
        for event in yaml.parse(text, Loader=Loader):
            if (tag := getattr(event, "tag", None)) not in (None, "!"):
                raise _WrongError(f"has the tag {shown(tag)}, expected plain texts and numbers")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            aliases += isinstance(event, yaml.AliasEvent)
            if depth > MOST_DEPTH:
                raise _too_deep()
            if aliases > MOST_ALIASES:
                raise _WrongError(f"has more than {MOST_ALIASES} aliases (*name), expected settings written out")
        nodes, seen = [yaml.compose(text, Loader=Loader)], set()
        while nodes:
            node = nodes.pop()
            if id(node) in seen:  # an alias
                continue
            seen.add(id(node))
            if isinstance(node, yaml.MappingNode):
                _distinct([(str(key.value), None) for key, _ in node.value])
                nodes += [each for pair in node.value for each in pair]
            elif isinstance(node, yaml.SequenceNode):
                nodes += node.value
            elif isinstance(node, yaml.ScalarNode) and "\0" in node.value:
                raise _WrongError(f"has a zero byte in {shown(node.value)}, expected text")
        value = yaml.load(text, Loader=Loader)
    except RecursionError:
        raise _too_deep() from None
    except yaml.YAMLError as error:
        raise _WrongError(f"cannot be read as YAML ({error}), expected settings by name") from None
    if not isinstance(value, dict):
        raise _WrongError(f"holds {_kind(value)}, expected settings by name")
    _check_values(value)
    return value


def _distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise _WrongError(f"says {shown(twice)} twice, expected each name once")
    return found


def _whole(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        raise _WrongError(f"holds a whole number of {len(digits)} digits, expected one of 64 bits")
    return int(digits)


def _check_values(root: object) -> None:
    """All that is no matter of types: depth, keys, numbers that are none, text that cannot be written again."""
    level: list[object] = [root]
    for _ in range(MOST_DEPTH):
        inner: list[object] = []
        for value in level:
            if isinstance(value, dict):
                for name in value:
                    if not isinstance(name, str):
                        raise _WrongError(f"has the key {shown(name)}, expected names that are text")
                inner.extend(value)
                inner.extend(value.values())
            elif isinstance(value, list | tuple | set):
                inner.extend(value)
            elif isinstance(value, float) and not math.isfinite(value):
                raise _WrongError(f"holds the number {value}, expected finite ones")
            elif isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise _WrongError("holds a whole number of hundreds of digits, expected one of 64 bits")
            elif isinstance(value, str) and not value.isascii() and not value.isprintable():
                _check_text(value)
        if len(inner) > MOST_VALUES:
            raise _WrongError(f"holds more than {MOST_VALUES} values, expected fewer")
        if not inner:
            return
        level = inner
    raise _too_deep()


def _check_text(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _WrongError(f"holds the text {shown(value)}, which is not Unicode, expected text in UTF-8") from None


def _too_deep() -> _WrongError:
    return _WrongError(f"is nested more than {MOST_DEPTH} levels deep, expected a record")


def _build(kind: type[T], data: object, where: str) -> T:
    if not isinstance(data, dict):
        raise _WrongError(f"{where} is {_kind(data)}, expected an object")
    entries = dataclasses.fields(kind)  # type: ignore[arg-type]  # every kind is a dataclass
    data = _in_new_words(entries, data)
    names = {entry.name for entry in entries}
    required = {entry.name for entry in entries if not entry.metadata.get("may_lack")}
    unknown, missing = sorted(set(data) - names), sorted(required - set(data))
    if unknown or missing:
        wrong = [f"has unknown keys {shown(unknown)}"] * bool(unknown) + [f"lacks {', '.join(missing)}"] * bool(missing)
        raise _WrongError(f"{where} {' and '.join(wrong)}")
    hints = get_type_hints(kind, include_extras=True)
    return kind(**{name: _value(hints[name], value, f"{where}.{name}") for name, value in data.items()})


def _in_new_words(entries: tuple[dataclasses.Field[Any], ...], data: dict[str, Any]) -> dict[str, Any]:
    """`data` as it would be written today, see `formerly`."""
    new_names = {entry.metadata["old_name"]: entry.name for entry in entries if entry.metadata.get("old_name")}
    twice = [f"{old} and {new}" for old, new in new_names.items() if old in data and new in data]
    if twice:
        raise _WrongError(f"found both {twice[0]}, which are one setting, expected the second alone")
    renamed = {new_names.get(name, name): value for name, value in data.items()}
    for entry in entries:
        value = renamed.get(entry.name)
        if isinstance(value, str):
            renamed[entry.name] = entry.metadata.get("old_values", {}).get(value, value)
    return renamed


def _value(hint: Any, value: Any, where: str) -> Any:
    """What JSON has as `value`, as the type `hint` wants it: objects as dataclasses, lists as tuples."""
    origin, arms = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return None if value is None else _value(next(arm for arm in arms if arm is not type(None)), value, where)
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where)  # type: ignore[arg-type]  # a class, not an instance
    if origin is tuple:
        return _tuple(arms, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise _WrongError(f"{where} is {_kind(value)}, expected an object")
        return {name: _value(arms[1], entry, f"{where}[{shown(name)}]") for name, entry in value.items()}
    return value if hint is Any else _plain(hint, value, where)


def _plain(hint: Any, value: Any, where: str) -> Any:
    """A text, a number, or true or false."""
    arms = get_args(hint)
    if get_origin(hint) is Literal:
        fits = isinstance(value, str) and value in arms
        expected = f"{', '.join(arms[:-1])} or {arms[-1]}"
    elif get_origin(hint) is Annotated:
        value = _plain(arms[0], value, where)
        fits, expected = arms[1].low <= value <= arms[1].high, str(arms[1])
    else:
        value = float(value) if hint is float and type(value) is int else value
        fits, expected = type(value) is hint, _NAMES[hint]
    if not fits:
        raise _WrongError(f"{where} is {shown(value)}, expected {expected}")
    return value


def _tuple(arms: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _WrongError(f"{where} is {_kind(value)}, expected a list")
    kinds = [arms[0]] * len(value) if arms[-1] is ... else list(arms)
    if len(kinds) != len(value):
        raise _WrongError(f"{where} is {shown(value)}, expected a list of {len(kinds)}")
    return tuple(
        _value(kind, entry, f"{where}[{index}]") for index, (kind, entry) in enumerate(zip(kinds, value, strict=True))
    )


_NAMES = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    dict: "an object",
    list: "a list",
    type(None): "nothing",
}


def _kind(value: object) -> str:
    return _NAMES.get(type(value), type(value).__name__)
