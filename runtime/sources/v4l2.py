"""Cameras of Video4Linux, `/dev/video*`, and why one of them cannot be opened."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

import cv2

from runtime.devices import gives_pictures
from runtime.sources.camera import Camera
from runtime.sources.shape import SourceOptions
from stlm_edge.credentials import safe_name
from stlm_edge.errors import SourceError
from stlm_edge.imaging import silence_opencv

_REQUEST_BUFFERS = 0xC0145608
"""`VIDIOC_REQBUFS` with a `v4l2_requestbuffers` of 20 bytes; a camera in use refuses it."""


def open_device(device: Path, options: SourceOptions, *, name: str) -> Camera:
    """Open a camera and ask it for size and rate; what it makes of that shows in its frames.

    Raises:
        SourceError: if there is none, it may not be used, is in use or is not a camera.
    """
    silence_opencv()
    problem = _problem(device)
    if problem is None:
        capture = cv2.VideoCapture(str(device), cv2.CAP_V4L2)
        if capture.isOpened():
            _ask(capture, options)
            return Camera(capture, name=name, fps=options.fps, reason=lambda: _unplugged(device))
        capture.release()
        problem = "its driver delivers no format that OpenCV reads; see them: v4l2-ctl --list-formats"
    raise SourceError(f"{name} cannot be opened: {problem}")


def _ask(capture: cv2.VideoCapture, options: SourceOptions) -> None:
    if options.size_before_turning is not None:
        height, width = options.size_before_turning
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
    if options.fps is not None:
        capture.set(cv2.CAP_PROP_FPS, options.fps)


def _unplugged(device: Path) -> str | None:
    return None if device.exists() else f"{device} is gone, so it was unplugged"


def _problem(device: Path) -> str | None:
    """What is wrong with `device` and what to do, None if nothing shows. Asked first, since OpenCV does not tell."""
    try:
        handle = os.open(device, os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        return _about(error, safe_name(str(device)))
    try:
        if not gives_pictures(handle):
            return (
                f"{device} carries no pictures but another part of a camera; try the neighbouring ones: ls /dev/video*"
            )
        # No buffers at all: nothing is taken, and a camera in use says so.
        fcntl.ioctl(handle, _REQUEST_BUFFERS, bytearray(struct.pack("=5I", 0, 1, 1, 0, 0)))
    except OSError as error:
        # A multi-planar or read-only camera knows no such buffers; OpenCV is to judge it.
        return None if error.errno == errno.EINVAL else _about(error, safe_name(str(device)))
    finally:
        os.close(handle)
    return None


def _about(error: OSError, device: str) -> str:
    match error.errno:
        case errno.ENOENT | errno.ENODEV | errno.ENXIO:
            return f"there is no camera at {device}; check its cable and list those there are: ls /dev/video*"
        case errno.EACCES | errno.EPERM:
            return f"permission for {device} is denied; join its group and log in again: sudo usermod -aG video $USER"
        case errno.EBUSY:
            return f"{device} is in use by another program; find and end it: fuser -v {device}"
        case errno.ENOTTY:
            return f"{device} is not a camera; list those there are: ls /dev/video*"
    return f"{device} answers {error.strerror or error}; unplug the camera and plug it in again"
