"""Bars are drawn on a terminal and nowhere else."""

from __future__ import annotations

import io
import shutil
import sys

import pytest

from stlm_edge.progress import counted, fraction_bar, live_lines


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_all_items_come_and_a_terminal_sees_how_many(stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    assert list(counted(iter("abc"), total=3)) == ["a", "b", "c"]
    assert ("3/3" in sys.stderr.getvalue()) == (stream is Terminal)
    assert stream is Terminal or sys.stderr.getvalue() == ""


def test_lines_are_drawn_in_the_place_of_those_before_and_fit_the_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: (7, 3))
    with live_lines() as show:
        show(["abcdefgh", "i\x1bj", "k"])
        show(["l"])
    assert sys.stderr.getvalue() == "\r\x1b[Jabcdef\ni\\x1bj\n\x1b[2A\r\x1b[Jl\n\x1b[1A\r\x1b[J"
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with live_lines() as show:
        show(["a"])
    assert sys.stderr.getvalue() == ""


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_a_terminal_sees_the_fraction_and_what_is_done(stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    with fraction_bar("plate.plan") as show:
        for fraction in (0.0, 0.25, 0.25, 1.0):
            show(fraction, "timing")
    printed = sys.stderr.getvalue()
    assert all((words in printed) == (stream is Terminal) for words in ("plate.plan", "25%", "100%", "timing"))
    assert stream is Terminal or printed == ""
