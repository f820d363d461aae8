"""Network cameras, through OpenCV's FFmpeg: RTSP, and MJPEG over HTTP."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

import cv2

from runtime.sources.camera import Camera, silence_opencv
from runtime.sources.credentials import without_credentials
from runtime.sources.shape import SourceOptions
from stlm_edge.errors import SourceError

STREAM_SCHEMES = ("rtsp", "rtsps", "http", "https")

_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}

_FFMPEG_OPTIONS = "rtsp_transport;tcp|fflags;nobuffer|flags;low_delay"
"""TCP, since a lost UDP packet is a smear that looks like a defect; nothing is held back for smoothness' sake."""


def open_stream(uri: str, options: SourceOptions, *, open_s: float, read_s: float) -> Camera:
    """Open a network camera. `OPENCV_FFMPEG_CAPTURE_OPTIONS` of the environment takes the place of our own for FFmpeg.

    Args:
        open_s: how long connecting may take.
        read_s: how long a frame may take; then the connection counts as lost.
    Raises:
        SourceError: if nobody answers or what answers is no stream.
    """
    silence_opencv()
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", _FFMPEG_OPTIONS)
    name = without_credentials(uri)
    problem = _unreachable(uri, timeout_s=open_s)
    if problem is not None:
        raise SourceError(f"{name} cannot be opened: {problem}")
    settings = {
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: int(1e3 * open_s),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC: int(1e3 * read_s),
        # Each further thread of the decoder is a frame of delay.
        cv2.CAP_PROP_N_THREADS: 1,
    }
    capture = cv2.VideoCapture(uri, cv2.CAP_FFMPEG, [number for pair in settings.items() for number in pair])
    if not capture.isOpened():
        capture.release()
        raise SourceError(
            f"{name} cannot be opened: its host answers but sends no stream; check path, user and password in a player"
        )
    return Camera(capture, name=name, fps=options.fps, silent_s=0.99 * read_s)


def _unreachable(uri: str, *, timeout_s: float) -> str | None:
    """Why its host cannot be connected to, which FFmpeg does not tell; None if it can."""
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port or _PORTS[parts.scheme]
        # A login with a slash in it would be taken for the host.
        host = None if "@" in uri and "@" not in parts.netloc else host
    except ValueError:
        host = None
    if not host:
        return "it is not an address; give rtsp://USER:PASSWORD@HOST:PORT/PATH, with special characters as %40 for @"
    try:
        socket.create_connection((host, port), timeout_s).close()
    except socket.gaierror:
        return f"there is no host {host}; check the name, or give its IP address"
    except TimeoutError:
        return f"{host} does not answer at port {port} within {timeout_s:g} s; check the camera's power and the network"
    except OSError as error:
        return f"{host} at port {port}: {error.strerror or error}; check the camera's address and that it runs"
    return None
