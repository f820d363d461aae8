"""Seeded damage to the content of a file."""

from __future__ import annotations

import copy
import json
import random
import re
from typing import Any

SNIPPETS = (
    *(b"\x00", b"\x00" * 4096, b"\xff", b"\xff" * 64, b"\xef\xbb\xbf", b"\xff\xfe", b"\r\n", b"\n\n", b"\x1b[31m"),
    *(b"[" * 20_000, b"{" * 20_000, b'{"a":' * 20_000, b"- " * 2000, b"9" * 5000, b"-1", b"1e999", b"NaN", b"\\ud800"),
    *(
        b"2001-13-45",
        b"!!timestamp x",
        b"&a [*a, *a]",
        b"../" * 20,
        b"/dev/zero",
        b"=1+1",
        b"'",
        b'"',
        b",",
        b";",
        b"\t",
    ),
)

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 32, 1000, 2**31, 2**63, -(2**63), 0.5, -0.5, 1e-320, 1e308, float("nan")),
    *(float("inf"), float("-inf"), "", "x", "x" * 100_000, "\ud800", "\x1b[31m\n", "../../etc/passwd", "2001-13-45"),
    *([], {}, [1], [1, 2], [0, 0], [-5, 10**9], [[]], {"a": 1}, [1.5] * 10_000, {"x" * 5000: 1}, [None] * 3),
)

HUGE = "@huge@"
"""Stands for a number that Python does not write, as `@nested 900@` does for so many lists in each other."""


def of_bytes(content: bytes, rng: random.Random) -> bytes:
    """One to four of: bits flipped, bytes set, a part cut out, doubled, moved or cut off, a snippet put in."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.choice((1, 2, 8, 64, 1024, len(data))))
        match rng.randrange(8):
            case 0 | 1 if start < len(data):
                data[start] ^= 1 << rng.randrange(8)
            case 2 if start < len(data):
                data[start] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 3:
                del data[start:end]
            case 4:
                data[start:start] = data[start : min(end, start + 4096)]
            case 5:
                place = rng.randrange(len(data) + 1)
                data[place:place] = data[start:end]
            case 6:
                del data[start:]
            case _:
                data[start:start] = rng.choice(SNIPPETS)
    return bytes(data)


def of_json(content: bytes, rng: random.Random) -> bytes:
    """Mostly the values of a JSON file: of another type, length or size, missing, renamed, nested."""
    if rng.random() < 0.25:
        return of_bytes(content, rng)
    return write(of_object(json.loads(content), rng))


def of_object(record: Any, rng: random.Random) -> Any:
    """What JSON holds, with one to three of its values altered."""
    record = copy.deepcopy(record)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(record))
        if not places:
            break
        holder, key = rng.choice(places)
        match rng.randrange(8):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[rng.choice(("", "x", "schema_version", key.upper(), key + " "))] = holder.pop(key)
            case 2:
                other, from_key = rng.choice(places)
                holder[key] = copy.deepcopy(other[from_key])
            case 3:
                holder[key] = f"@nested {rng.choice((1, 2, 70, 900, 20_000))}@"
            case 4 if isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
                holder[key] = rng.choice((-holder[key], holder[key] * 10**6, holder[key] + 1, str(holder[key])))
            case 5 if isinstance(holder[key], list):
                holder[key] = rng.choice((holder[key] * 2, holder[key][:-1], holder[key][::-1], {"0": holder[key]}))
            case 6:
                holder[key] = HUGE
            case _:
                holder[key] = copy.deepcopy(rng.choice(VALUES))
    return record


def write(record: Any) -> bytes:
    text = json.dumps(record).replace(f'"{HUGE}"', "1" + "0" * 400)
    return re.sub(r'"@nested (\d+)@"', lambda found: "[" * int(found[1]) + "]" * int(found[1]), text).encode()


def _places(value: Any) -> Any:
    """All pairs of a list or object and an index or name in it, those within too."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)
