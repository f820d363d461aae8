"""What `stlm doctor` asks of GenICam cameras, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from runtime.sources.genicam.aravis import AravisCamera, cameras_seen
from runtime.sources.genicam.transport import Seen, Transport
from stlm_edge.errors import SourceError


def by_aravis() -> list[str]:
    """A line for each camera. Raises `SourceError` without Aravis."""
    return [_described(seen, partial(AravisCamera, *seen.uri.split("://"))) for seen in cameras_seen()]


def by_producers() -> list[str]:
    """The same. Raises `ImportError` without the packages."""
    from runtime.sources.genicam import producer  # of an extra

    return [_described(seen, partial(_of_producer, seen)) for seen in producer.cameras_seen()]


def _of_producer(seen: Seen) -> Transport:
    from runtime.sources.genicam.producer import ProducerCamera

    file, _, serial = seen.uri.removeprefix("genicam:").rpartition("#")
    return ProducerCamera(Path(file), serial)


def _described(seen: Seen, opening: Callable[[], Transport]) -> str:
    try:
        camera = opening()
    except SourceError:
        formats = "in use by another program or refused"
    else:
        formats = ", ".join(camera.choices("PixelFormat"))
        camera.close()
    place = f" at {seen.address}" if seen.address else ""
    return f"{seen.uri}: {seen.vendor} {seen.model}, serial {seen.serial}{place}; {formats}"
