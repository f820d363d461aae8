"""Names of every kind in tables, JSON, logs and pictures: safe, told apart, and to be had back."""

from __future__ import annotations

import csv
import io
import itertools
import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from stlm_edge.cli import TextLine
from stlm_edge.drawing import contact_sheet
from stlm_edge.errors import DataError
from stlm_edge.names import (
    LONGEST_NAME,
    cell,
    defused,
    escaped,
    fitted,
    for_drawing,
    from_cell,
    is_utf8,
    markdown,
    printable,
    unescaped,
)

NAMES = (
    "plain.png",
    "größer 部品 👍.png",
    os.fsdecode(b"gr\xfc\xdfe.png"),
    "gr\\xfc\\xdfe.png",
    "gr\xfc\xdfe.png",
    "a\nb.png",
    "a\\nb.png",
    "a\\x0ab.png",
    "a\\\\x0ab.png",
    "a\\\nb.png",
    "a\\u0085b.png",
    "a\x85b.png",
    os.fsdecode(b"a\x85b.png"),
    "\x1b[31mred\x1b[0m.png",
    "tab\tquote\"comma,'.png",
    "=1+1.png",
    "'=1+1.png",
    "''=1+1.png",
    "+a.png",
    "-a.png",
    "@a.png",
    "\t=a.png",
    "a|b`c.png",
    "\u202egnp.a",
    "a\u2028b.png",
    "back\\slash.png",
    "\\x5c.png",
)


def test_rule_by_example() -> None:
    assert escaped(os.fsdecode(b"gr\xfc\xdfe.png")) == "gr\\xfc\\xdfe.png"
    assert escaped("gr\\xfce.png") == "gr\\x5cxfce.png"
    assert escaped("a\nb\x85") == "a\\x0ab\\u0085"
    assert escaped("größer\\部\u202f👍.png") == "größer\\部\u202f👍.png"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_one_line_of_utf8_and_gives_the_name_back(name: str) -> None:
    for safe, back in ((escaped(name), unescaped), (cell(name), from_cell)):
        assert len(safe.encode().splitlines()) == 1
        assert len(safe.splitlines()) == 1
        assert "\x1b" not in safe
        assert back(safe) == name
    assert json.loads(json.dumps(escaped(name), ensure_ascii=False).encode()) == escaped(name)


def test_two_names_never_become_one() -> None:
    assert len({escaped(name) for name in NAMES}) == len({cell(name) for name in NAMES}) == len(NAMES)


def test_names_of_random_characters_come_back() -> None:
    rng = np.random.default_rng(0)
    alphabet = ["\\", "x", "u", "0", "a", "5", "c", "'", "=", "\n", "\x85", "\udc85", "\udcff", "\u2028", "ü"]
    names = {"".join(rng.choice(alphabet, 12)) for _ in range(3000)}
    names |= {"".join(some) for some in itertools.product(alphabet, repeat=3)}
    assert {from_cell(cell(name)) for name in names} == names
    assert len({cell(name) for name in names}) == len(names)
    assert {unescaped(escaped(name)) for name in names} == names


def test_no_cell_is_a_formula() -> None:
    for name in NAMES:
        assert cell(name)[0] not in "=+-@\t\r\n"
    assert defused("-0.5 is cold") == "'-0.5 is cold"
    rows = [[cell(name), "1"] for name in NAMES]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    assert text.getvalue().count("\n") == len(rows)
    assert [from_cell(row[0]) for row in csv.reader(io.StringIO(text.getvalue(), newline=""))] == list(NAMES)


def test_line_for_people_is_escaped_once() -> None:
    line = printable("skipped: " + os.fsdecode(b"gr\xfc") + "\x1b\nx")
    assert line == "skipped: gr\\xfc\\x1b\\x0ax"
    assert printable(line) == line
    assert str(DataError(os.fsdecode(b"gr\xfc") + " is empty")) == "gr\\xfc is empty"


def test_markdown_has_no_markup_of_names() -> None:
    assert markdown("a|b`c*d[e](f)<g>$h$") == r"a\|b\`c\*d\[e\](f)\<g>\$h\$"
    assert markdown("a\nb") == r"a\\x0ab"
    assert markdown("metal_nut") == "metal_nut"
    assert markdown("_x_") == "\\_x\\_"


def test_log_has_one_line_for_each_record_whatever_the_names() -> None:
    formatter = TextLine("%(message)s")
    record = logging.LogRecord(
        "runtime.x", logging.WARNING, "", 0, "skipped: %s", ("a\nerror: all is lost\x1b[2J",), None
    )
    assert formatter.format(record) == "skipped: a\\x0aerror: all is lost\\x1b[2J"
    record = logging.LogRecord("torch", logging.WARNING, "", 0, "two\nlines", (), None)
    assert formatter.format(record) == "two\nlines"


@pytest.mark.parametrize("name", ["a" * 251, "a" * 252, "部" * 85, "a" * 255, os.fsdecode(b"\xfc" * 255)])
def test_name_of_an_overlay_fits_and_different_ones_stay_different(name: str, tmp_path: Path) -> None:
    short = fitted(name, suffix=".jpg")
    assert len(os.fsencode(short)) <= LONGEST_NAME
    assert short.endswith(".jpg")
    assert short != fitted(name[:-1] + "b", suffix=".jpg")
    (tmp_path / short).touch()


def test_drawn_names_are_ascii_and_short() -> None:
    """OpenCV ends the whole program on text that is not Unicode."""
    assert for_drawing("größe\n") == "gr\\xf6\\xdfe\\x0a"
    assert len(for_drawing("部" * 80)) <= 80
    picture = np.zeros((8, 8, 3), np.uint8)
    sheet = contact_sheet([[picture]], titles=["a"], captions=[os.fsdecode(b"\xfc" * 240)], cell=(200, 200))
    assert sheet.shape[1] < 1500


def test_names_that_opencv_cannot_open_are_told_apart() -> None:
    assert is_utf8("größe.avi")
    assert not is_utf8(Path(os.fsdecode(b"gr\xfc.avi")))
