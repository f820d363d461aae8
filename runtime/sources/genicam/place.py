"""Which GenICam camera a URI names: `gige://SERIAL-OR-IP`, `u3v://SERIAL`, `genicam:CTI-FILE#SERIAL`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from runtime.sources.base import FrameSource
from runtime.sources.genicam.aravis import PROTOCOLS, AravisCamera
from runtime.sources.genicam.camera import GenicamCamera
from runtime.sources.genicam.controls import KNOWN, Controls
from runtime.sources.genicam.transport import Transport
from runtime.sources.shape import SourceOptions
from stlm_edge.errors import SourceError

SCHEMES = frozenset({*PROTOCOLS, "genicam"})


def genicam_camera(uri: str, options: SourceOptions) -> tuple[str, Callable[[], FrameSource]]:
    """The name of a camera, and what opens it. Raises `SourceError` if a control is not known or does not fit."""
    name, _, query = uri.partition("?")
    scheme, _, place = name.partition(":")
    place = place.removeprefix("//")
    if scheme == "genicam" and "#" in query and "#" not in place:
        raise SourceError(
            f"{name} cannot be opened: found the serial number behind the settings, expected it before them, as in "
            "genicam:CTI-FILE#SERIAL?exposure-us=2000; write it so"
        )
    try:
        controls = Controls.parse(query, trigger=options.trigger)
    except ValueError as error:
        raise SourceError(f"{name} cannot be opened: {error}; known are {KNOWN}") from None
    if not place:
        raise SourceError(
            f"{uri} names no camera, expected gige://SERIAL-OR-IP, u3v://SERIAL or genicam:CTI-FILE#SERIAL; list those "
            "there are: stlm doctor"
        )
    transport: Callable[[], Transport]
    if scheme == "genicam":
        file, _, serial = place.rpartition("#") if "#" in place else (place, "", "")
        transport = partial(_open_producer, Path(file), serial)
    else:
        transport = partial(AravisCamera, scheme, place)
    opening = partial(GenicamCamera, transport, name=name, controls=controls, fps=options.fps, trigger=options.trigger)
    return name, opening


def _open_producer(file: Path, serial: str) -> Transport:
    from runtime.sources.genicam.producer import ProducerCamera  # of an extra, which no other camera needs

    return ProducerCamera(file, serial)
