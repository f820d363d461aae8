"""The process behind `display://`: shows the pictures that come through its standard input.

It is a process of its own since OpenCV's windows want one thread for themselves, and since Qt and X end the whole
program when the screen goes away; an inspection must not end because somebody has logged out.

Each picture comes as two unsigned 32-bit numbers, rows and columns, and its pixels. It ends with exit code 0 at `q`,
Esc, a closed window or the end of the input, and answers `ready` once there is a window, then `trigger` at each space.
"""

from __future__ import annotations

import io
import select
import signal
import struct
import sys

import cv2
import numpy as np
from numpy.typing import NDArray

from stlm_edge.imaging import Image

HEADER = struct.Struct("<II")
READY = b"ready\n"
TRIGGER = b"trigger\n"

_TITLE = "stlm-edge"
_KEYS = (ord("q"), 27)
_SPACE = ord(" ")
_LARGEST = (720, 1280)
"""Rows and columns that a window has at most when it is opened."""
_POLL_MS = 15


def main() -> int:
    """Show pictures until the end; returns the exit code."""
    # A signal to all processes of the terminal or service is for the program that opened this one.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
    _say(READY)
    # Without a buffer, in which a picture could lie that `select` does not see.
    pictures = io.FileIO(sys.stdin.fileno(), closefd=False)
    is_first = True
    while True:
        # The window answers also while no picture comes.
        if select.select([pictures], [], [], 0)[0]:
            image = _read(pictures)
            if image is None:
                return 0
            cv2.imshow(_TITLE, image)
            if is_first:
                # Resized before it has a picture, Qt's window now and then stays black for good.
                scale = min(1.0, *(most / side for most, side in zip(_LARGEST, image.shape[:2], strict=True)))
                cv2.resizeWindow(_TITLE, round(scale * image.shape[1]), round(scale * image.shape[0]))
                is_first = False
        key = cv2.waitKey(_POLL_MS) & 0xFF
        if key in _KEYS or (not is_first and _is_closed()):
            return 0
        if key == _SPACE:
            _say(TRIGGER)


def _say(word: bytes) -> None:
    sys.stdout.buffer.write(word)
    sys.stdout.buffer.flush()


def _is_closed() -> bool:
    try:
        return cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1
    except cv2.error:  # of Qt, once there is no window left
        return True


def _read(stream: io.FileIO) -> Image | None:
    head = np.zeros(HEADER.size, np.uint8)
    if not _fill(head, stream):
        return None
    image: Image = np.empty((*HEADER.unpack(head.tobytes()), 3), np.uint8)
    return image if _fill(image.reshape(-1), stream) else None


def _fill(data: NDArray[np.uint8], stream: io.FileIO) -> bool:
    """Read as many bytes as `data` takes; False if the stream ends before."""
    filled = 0
    while filled < data.size:
        count = stream.readinto(data[filled:].data)
        if not count:
            return False
        filled += count
    return True
