"""Cameras of Video4Linux, `/dev/video*`, and why one of them cannot be opened."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2

from runtime.devices import gives_pictures
from runtime.sources.camera import Camera
from runtime.sources.genicam.controls import AUTO, CONTROLS
from runtime.sources.shape import SourceOptions
from runtime.uri import parse_options
from stlm_edge.credentials import safe_name
from stlm_edge.errors import SourceError
from stlm_edge.imaging import silence_opencv

_REQUEST_BUFFERS = 0xC0145608
"""`VIDIOC_REQBUFS` with a `v4l2_requestbuffers` of 20 bytes; a camera in use refuses it."""


_SET_CONTROL, _QUERY_CONTROL = 0xC008561C, 0xC0445624
"""`VIDIOC_S_CTRL` with a `v4l2_control` of 8 bytes, `VIDIOC_QUERYCTRL` with a `v4l2_queryctrl` of 68."""
_EXPOSURE_AUTO, _EXPOSURE, _GAIN_AUTO, _GAIN = 0x009A0901, 0x009A0902, 0x00980912, 0x00980913
"""`V4L2_CID_EXPOSURE_AUTO`, `_EXPOSURE_ABSOLUTE` in units of 100 microseconds, `_AUTOGAIN`, `_GAIN`."""
_MANUAL, _APERTURE_PRIORITY = 1, 3
"""Values of the first: all by hand; exposure by the camera, as those of webcams do."""


def open_device(device: Path, options: SourceOptions, *, name: str, query: str = "") -> Camera:
    """Open a camera and ask it for size and rate; what it makes of that shows in its frames.

    Args:
        query: `exposure-us`, `gain` and `pixel-format`, as of a GenICam camera; the gain in the driver's own unit.
    Raises:
        SourceError: if there is none, it may not be used, is in use or is not a camera, or refuses a control.
    """
    silence_opencv()
    try:
        controls = parse_options(query, {each: CONTROLS[each] for each in ("exposure-us", "gain", "pixel-format")})
    except ValueError as error:
        raise SourceError(f"{name} cannot be opened: {error}; known are exposure-us, gain, pixel-format") from None
    problem = _problem(device)
    if problem is None:
        capture = cv2.VideoCapture(str(device), cv2.CAP_V4L2)
        if capture.isOpened():
            _ask(capture, options)
            try:
                _set_controls(device, capture, controls)
            except ValueError as error:
                capture.release()
                raise SourceError(f"{name} cannot be opened: {error}") from None
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


def _set_controls(device: Path, capture: cv2.VideoCapture, controls: Mapping[str, Any]) -> None:
    """Raises `ValueError` with a reason."""
    wanted = controls.get("pixel-format")
    if wanted is not None:
        code = sum(ord(letter) << 8 * place for place, letter in enumerate(wanted.ljust(4)))
        capture.set(cv2.CAP_PROP_FOURCC, code)
        if int(capture.get(cv2.CAP_PROP_FOURCC)) != code:
            raise ValueError(f"its driver does not take pixel-format={wanted}; see: v4l2-ctl --list-formats")
    handle = os.open(device, os.O_RDWR | os.O_NONBLOCK)
    try:
        exposure, gain = controls.get("exposure-us"), controls.get("gain")
        if exposure == AUTO:
            set_control(handle, "exposure-us", _EXPOSURE_AUTO, _APERTURE_PRIORITY)
        elif exposure is not None:
            set_control(handle, "exposure-us", _EXPOSURE_AUTO, _MANUAL, may_lack=True)
            set_control(handle, "exposure-us", _EXPOSURE, round(exposure / 100), unit_us=100)
        if gain == AUTO:
            set_control(handle, "gain", _GAIN_AUTO, 1)
        elif gain is not None:
            set_control(handle, "gain", _GAIN_AUTO, 0, may_lack=True)
            set_control(handle, "gain", _GAIN, round(gain))
    finally:
        os.close(handle)


def set_control(handle: int, name: str, control: int, value: int, *, unit_us: int = 1, may_lack: bool = False) -> None:
    """Set a control of an open device, within the limits that its driver has for it.

    Args:
        name: for messages.
        unit_us: what the driver counts in, where `name` is in microseconds.
        may_lack: a device without it is left as it is.
    Raises:
        ValueError: with a reason, if there is no such control or the value is out of its range.
    """
    asked = bytearray(struct.pack("=I64x", control))
    try:
        fcntl.ioctl(handle, _QUERY_CONTROL, asked)
    except OSError as error:
        if may_lack and error.errno == errno.EINVAL:
            return
        raise ValueError(
            f"its driver has no control for {name} ({error.strerror}); see: v4l2-ctl --list-ctrls"
        ) from None
    lowest, highest = struct.unpack_from("=ii", asked, 40)
    if not lowest <= value <= highest:
        raise ValueError(f"{name} is {value * unit_us}, expected {lowest * unit_us} to {highest * unit_us}")
    try:
        fcntl.ioctl(handle, _SET_CONTROL, struct.pack("=Ii", control, value))
    except OSError as error:
        raise ValueError(f"its driver refuses {name}: {error.strerror}; see: v4l2-ctl --list-ctrls") from None


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
