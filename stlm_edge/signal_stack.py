"""The stack that signal handlers of this thread run on, kept as it is while a library does as it likes.

OpenVINO gives the thread that compiles a model a stack of its own for signals, and frees that memory with the model. A
signal with a handler that comes later, Ctrl-C or the end of a child process among them, then finds no stack, and the
kernel ends the program with a segmentation fault (seen with OpenVINO 2026.4 on Linux).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Put back, when the block ends, what the calling thread had as its stack for signals."""
    libc, before = ctypes.CDLL(None), _Stack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(before), None)


def signal_stack() -> tuple[int | None, int]:
    """Address and size of the calling thread's stack for signals; None and 0 if it has none."""
    found = _Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
    return found.sp, found.size
