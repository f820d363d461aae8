"""The quick tier guards itself: what takes long by its nature ends the test, also where tested code catches errors."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess

import pytest
import torch


def run_and_go_on() -> None:
    try:
        subprocess.run(["true"], check=False)
    except Exception:
        return


@pytest.mark.parametrize(
    ("act", "what"),
    [
        (run_and_go_on, "starts a process"),
        (os.fork, "starts a process"),
        (multiprocessing.get_context("spawn").Process(target=print).start, "starts a process"),
        (socket.socket, "opens a socket"),
        (lambda: torch.export.export(torch.nn.ReLU(), (torch.zeros(1),)), "traces a network"),
    ],
)
def test_quick_tests_do_nothing_that_takes_long(act, what):
    with pytest.raises(pytest.fail.Exception, match=what):
        act()


@pytest.mark.heavy
def test_heavy_tests_may():
    assert subprocess.run(["true"], check=False).returncode == 0
