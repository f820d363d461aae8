"""Options behind the question mark of a source's or an output's URI, as in `events.jsonl?rotate=100MB&keep=10`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any
from urllib.parse import parse_qsl

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True)
class Option:
    """One option that a URI may have.

    Attributes:
        parse: from the text behind the equals sign; raises `ValueError` on what is not allowed.
        expected: what is allowed, for people.
    """

    parse: Callable[[str], Any]
    expected: str


def parse_options(query: str, known: Mapping[str, Option]) -> dict[str, Any]:
    """The options that a query gives, each parsed.

    Args:
        query: what stands behind the question mark; may be empty.
    Raises:
        ValueError: on anything that is not a known option with a fitting value; its text is a reason, to be put into
            the caller's own error.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ValueError(f"{query!r} does not consist of NAME=VALUE joined by &") from None
    values: dict[str, Any] = {}
    for name, text in pairs:
        if name not in known:
            raise ValueError(f"there is no option {name!r}{nearest(name, known)}")
        if name in values:
            raise ValueError(f"{name} is given twice")
        try:
            values[name] = known[name].parse(text)
        except ValueError:
            raise ValueError(f"{name} is {text!r}, expected {known[name].expected}") from None
    return values


def nearest(name: str, known: Iterable[str]) -> str:
    """`, did you mean NAME` for a name that is almost one of the known ones, else nothing; its case is no matter."""
    lower = {each.lower(): each for each in known}
    found = get_close_matches(name.lower(), lower, n=1, cutoff=0.7)
    return f", did you mean {lower[found[0]]}" if found else ""


def allowed(parse: Callable[[str], Any], condition: Callable[[Any], bool]) -> Callable[[str], Any]:
    """A parser that raises `ValueError` for values outside of `condition` too."""

    def parse_and_check(text: str) -> Any:
        value = parse(text)
        if not condition(value):
            raise ValueError(text)
        return value

    return parse_and_check


def whole_number(*, least: int) -> Option:
    """A whole number from `least` on."""
    return Option(allowed(int, lambda value: value >= least), f"a whole number from {least} on")


def choice(*words: str) -> Option:
    """One of some words."""
    *others, last = words
    expected = f"{', '.join(others)} or {last}" if others else last
    return Option(allowed(str, lambda word: word in words), expected)


def size_in_bytes(*, least: int) -> Option:
    """A size with its unit, `500KB`, `100MB`, `5GB`, `1.5TB`, in powers of ten; at least so many bytes."""
    expected = f"a size from {format_bytes(least)} on, with its unit, as in 100MB or 5GB"
    return Option(allowed(_bytes, lambda value: value >= least), expected)


def format_bytes(size: int) -> str:
    """A size for people, in the largest unit of which there is one: 1500000 → `1.5MB`."""
    unit = max((name for name, value in _UNITS.items() if value <= size), key=_UNITS.__getitem__, default="KB")
    return f"{size / _UNITS[unit]:g}{unit}"


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(KB|MB|GB|TB)", text, flags=re.ASCII | re.IGNORECASE)
    if match is None:
        raise ValueError(text)
    return int(float(match[1]) * _UNITS[match[2].upper()])
