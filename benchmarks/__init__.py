"""Measurements; every module with a command is a program."""

import sys

from stlm_edge.cli import say_what_is_missing

# `python -m benchmarks.NAME` imports its libraries before there is a command that could catch what fails.
sys.excepthook = say_what_is_missing
