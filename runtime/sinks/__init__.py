"""Where verdicts and overlays go, chosen by a URI."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from runtime.event import Event
from runtime.sinks.base import FrameSink, SinkContext
from runtime.sinks.events import EventLog
from runtime.sinks.keep import KeptFrames
from runtime.sinks.outputs import Outputs
from runtime.sinks.pictures import PictureFolder
from runtime.sinks.table import ScoreTable
from runtime.sinks.video import CODECS, VideoFile, open_video
from runtime.sinks.window import Window
from stlm_edge.credentials import safe_name
from stlm_edge.errors import OutputError
from stlm_edge.files import cannot_write, leaving_no_folder
from stlm_edge.names import is_utf8

__all__ = ["FrameSink", "Outputs", "SinkContext", "open_outputs", "open_sink"]

_SCHEMES = {
    "modbus": ("runtime.sinks.modbus", "ModbusServer"),
    "opcua": ("runtime.sinks.opcua", "OpcUaServer"),
    "gpio": ("runtime.sinks.gpio", "GpioLine"),
    "mqtt": ("runtime.sinks.mqtt", "Mqtt"),
    "mqtts": ("runtime.sinks.mqtt", "Mqtt"),
    "http": ("runtime.sinks.webhook", "Webhook"),
    "https": ("runtime.sinks.webhook", "Webhook"),
}
"""Scheme → module and class, which is imported by whoever asks for it: most need a library that few lines have."""

TRIGGERS = ("display://", "modbus://", "opcua://", "mqtt://", "mqtts://")
"""How the outputs begin by which parts are triggered."""

_KNOWN = (
    f"known are display://, {', '.join(f'{scheme}://' for scheme in _SCHEMES)}, a video (.mp4, .avi), events (.jsonl), "
    "a table of scores (.csv) and a folder for pictures"
)


def open_outputs(
    uris: Sequence[str],
    *,
    context: SinkContext,
    drops: bool,
    on_publish: Callable[[float], None],
    more: Mapping[str, FrameSink] | None = None,
) -> Outputs:
    """Open all outputs of a run; see `open_sink` and `Outputs`. The caller closes them.

    Args:
        context: its `tell` hears, besides the outputs, of events that they themselves tell of.
        more: sinks that are open, by their names; closed with the others.
    Raises:
        OutputError: if one cannot be opened, or is given twice; then none stays open.
    """
    places = [os.path.realpath(uri.partition("?")[0]) for uri in uris]
    if len(set(places)) < len(uris):
        twice = next(uri for uri, place in zip(uris, places, strict=True) if places.count(place) > 1)
        raise OutputError(f"{twice} is given twice as an output; give each place once")

    listening: list[Outputs] = []

    def tell(event: Event) -> None:
        if also is not None:
            also(event)
        for outputs in listening:  # none while they are being opened
            outputs.write_event(event)

    also, context = context.tell, dataclasses.replace(context, tell=tell)
    with ExitStack() as opened:
        sinks: dict[str, FrameSink] = {}
        for uri in uris:
            if "://" not in uri.partition("?")[0]:
                opened.enter_context(leaving_no_folder(Path(uri.partition("?")[0])))
            sink = opened.enter_context(open_sink(uri, context=context))
            name = safe_name(uri) if uri.startswith(("http:", "https:")) else uri  # which the summary has
            sinks[name if name not in sinks else f"{name} ({len(sinks) + 1})"] = sink
        outputs = Outputs({**sinks, **(more or {})}, drops=drops, on_publish=on_publish, tell=tell)
        listening.append(outputs)
        opened.pop_all()
    return outputs


def check_places(uris: Sequence[str], *, summary: Path | None, source: Path | None, reads: Sequence[Path]) -> None:
    """See, before anything is opened, that nothing is written over what the run reads, or over its own outputs.

    Args:
        summary: where the summary is written at the end.
        source: the file or folder that is inspected; None for a camera.
        reads: other files of the run, the engine among them.
    Raises:
        OutputError: if something would be, or overlays would come among the pictures that are inspected.
    """
    outputs = [uri.partition("?")[0] for uri in uris if "://" not in uri.partition("?")[0]]
    if summary is not None and os.path.realpath(summary) in map(os.path.realpath, outputs):
        raise OutputError(f"{summary} is given as an output and for the summary; give each a place of its own")
    read = {os.path.realpath(path) for path in reads}
    inspected = None if source is None else os.path.realpath(source)
    for place in [*outputs, *([] if summary is None else [str(summary)])]:
        real = os.path.realpath(place)
        if real == inspected and Path(place).is_dir():
            raise OutputError(
                f"{place} is the folder that is inspected, and overlays there would be taken for parts; give another "
                "folder"
            )
        if real == inspected or real in read:
            raise OutputError(f"{place} is read by this run, and would be written over; give another place")


def check_outputs(uris: Sequence[str]) -> None:
    """See what can be seen of outputs before an engine is opened, which may take minutes; nothing is opened.

    Raises:
        OutputError: if there is no such output, it has no such option, or its port is taken.
    """
    for uri in uris:
        _kind_of(uri).check(uri)


def open_sink(uri: str, *, context: SinkContext) -> FrameSink:
    """Open what `uri` names; the caller closes it.

    Args:
        uri: `display://`; a video (`.mp4`, `.avi`), with `?minutes=60&limit=20GB` as segments; events (`.jsonl`) or a
            table (`.csv`), with `?rotate=100MB&keep=20`; a folder for pictures, with `?only=anomalies&limit=5GB`,
            or for frames as they came, with `?what=raw`, made if need be; `modbus://`, `opcua://` and `gpio://` for the
            machine that takes the parts, `mqtt://`, `mqtts://` and, as webhooks, `http://` and `https://` for other
            programs.
    Raises:
        OutputError: if there is no such output, it cannot be written to, or has no such option.
    """
    try:
        return _open(uri, context=context)
    except OSError as error:  # as where there is no room for temporary files
        raise cannot_write(Path(uri.partition("?")[0]), error) from error


def _open(uri: str, *, context: SinkContext) -> FrameSink:
    kind = _kind_of(uri)
    opened: FrameSink = (open_video if kind is VideoFile else kind.from_uri)(uri, context=context)
    return opened


def _kind_of(uri: str) -> Any:
    """A class of sinks; `VideoFile` for all videos. Raises `OutputError`, and `ImportError` where a library lacks."""
    place = uri.partition("?")[0]
    path = Path(place)
    if not place:
        raise OutputError(f"found nothing as an output; {_KNOWN}")
    if place == "display://":
        return Window
    if (scheme := place.partition("://")[0]) in _SCHEMES and scheme != place:
        module, name = _SCHEMES[scheme]
        return getattr(importlib.import_module(module), name)
    if "://" in place:
        raise OutputError(f"{uri} has an unknown scheme; {_KNOWN}")
    if path.is_dir() or not path.suffix or place.endswith("/"):
        return KeptFrames if ("what", "raw") in parse_qsl(uri.partition("?")[2]) else PictureFolder
    if path.suffix in CODECS:
        if not is_utf8(place):
            raise OutputError(f"{place} has a name that is not UTF-8, which OpenCV cannot write a video to; rename it")
        return VideoFile
    if path.suffix == ".jsonl":
        return EventLog
    if path.suffix == ".csv":
        return ScoreTable
    raise OutputError(f"{uri} has the unknown suffix {path.suffix!r}; {_KNOWN}")
