"""What can be set of a GenICam camera by its URI, and how that is written into its nodes.

Nodes have the names of GenICam's Standard Features Naming Convention, or those that cameras had before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl

from runtime.control import Trigger
from runtime.sources.genicam.pixel_formats import FORMATS, NAMES
from runtime.sources.genicam.transport import NodeError, Transport
from runtime.uri import Option, allowed, choice, nearest, parse_options
from stlm_edge.errors import SourceError

AUTO = "auto"
_NODE = "node."


@dataclass(frozen=True)
class Controls:
    """What stands behind the question mark of `gige://SERIAL?exposure-us=2000&gain=3`.

    Attributes:
        exposure_us: microseconds, or `auto`.
        gain: in the camera's unit, mostly dB; or `auto`.
        white_balance: `auto`, `once`, or what red and blue are multiplied with.
        region: left, top, width, height of what the sensor is read of.
        pixel_format: by its name; None leaves what is set.
        trigger_source: the input whose signal triggers; `Line1` if it is not given.
        trigger_edge: of that signal; None leaves what is set.
        trigger_delay_us: from the trigger to the exposure; None leaves what is set.
        nodes: any others, by name, written first and in this order.
    """

    exposure_us: float | Literal["auto"] | None = None
    gain: float | Literal["auto"] | None = None
    white_balance: Literal["auto", "once"] | tuple[float, float] | None = None
    region: tuple[int, int, int, int] | None = None
    pixel_format: str | None = None
    trigger_source: str | None = None
    trigger_edge: Literal["rising", "falling"] | None = None
    trigger_delay_us: float | None = None
    nodes: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, query: str, *, trigger: Trigger | None = None) -> Controls:
        """
        Args:
            trigger: what the camera is triggered by.
        Raises:
            ValueError: with a reason, on anything that is no known control with a fitting value.
        """
        parts = query.split("&") if query else []
        if any(part.startswith("trigger=") for part in parts):
            raise ValueError(
                "trigger is no part of the address but an option, --trigger hardware or --trigger software"
            )
        named = "&".join(part for part in parts if not part.startswith(_NODE))
        values = parse_options(named, CONTROLS)
        nodes = parse_qsl("&".join(part for part in parts if part.startswith(_NODE)), keep_blank_values=True)
        controls = cls(
            **{name.replace("-", "_"): value for name, value in values.items()},
            nodes=tuple((name.removeprefix(_NODE), value) for name, value in nodes),
        )
        for name in values:
            fit = ("hardware", "software") if name == "trigger-delay-us" else ("hardware",)
            if name.startswith("trigger-") and trigger not in fit:
                raise ValueError(f"{name} is given and nothing that it is for, expected --trigger {' or '.join(fit)}")
        return controls


def apply(controls: Controls, camera: Transport, *, trigger: Trigger | None, fps: float | None) -> None:
    """Write everything into the camera's nodes.

    Args:
        trigger: a signal at an input of the camera, or `FrameSource.trigger`; else it runs freely.
        fps: at most so many pictures a second, where the camera can be told.
    Raises:
        SourceError: if the camera has no such node or refuses a value.
    """
    nodes = Nodes(camera)
    for name, value in controls.nodes:
        nodes.write(name, value)
    if controls.pixel_format is not None:
        nodes.write("PixelFormat", controls.pixel_format)
    _require_readable(camera)
    if controls.region is not None:
        _set_region(nodes, controls.region)
    nodes.write_or_automatic(controls.exposure_us, "ExposureAuto", ("ExposureTime", "ExposureTimeAbs"))
    nodes.write_or_automatic(controls.gain, "GainAuto", ("Gain", "GainRaw"))
    if controls.white_balance is not None:
        _set_white_balance(nodes, controls.white_balance)
    _set_trigger(nodes, controls, trigger)
    if fps is not None:
        _set_rate(nodes, fps)


class Nodes:
    """Nodes of a camera, whose values are checked before it is told."""

    def __init__(self, camera: Transport) -> None:
        self._camera = camera

    def has(self, name: str) -> bool:
        """Whether the camera has this node."""
        return self._camera.kind(name) is not None

    def first(self, names: Sequence[str]) -> str:
        """That of several names which the camera has. Raises `SourceError`."""
        found = next((name for name in names if self.has(name)), None)
        if found is None:
            raise SourceError(_lacking(names[0], self._camera))
        return found

    def write(self, name: str, value: str) -> None:
        """Raises `SourceError`."""
        try:
            self._check(name, value)
            self._camera.write(name, value.lower() if self._camera.kind(name) == "boolean" else value)
        except NodeError as error:
            raise SourceError(f"the camera does not take {value!r} for {name}: {error}") from None

    def write_or_automatic(self, value: float | str | None, automatic: str, names: Sequence[str]) -> None:
        """Turn a control over to the camera, or set it to a value."""
        if value is None:
            return
        if value == AUTO:
            self.write(automatic, "Continuous")
            return
        if self.has(automatic):
            self.write(automatic, "Off")
        name = self.first(names)
        self.write(name, f"{value:g}" if self._camera.kind(name) == "float" else str(round(float(value))))

    def highest(self, name: str) -> float:
        """Of a number. Raises `NodeError`."""
        return self._camera.limits(name)[1]

    def is_fit(self, name: str, word: str) -> bool:
        """Whether an enumeration has this word."""
        return self._camera.kind(name) == "enumeration" and word in self._camera.choices(name)

    def _check(self, name: str, value: str) -> None:
        kind = self._camera.kind(name)
        if kind is None:
            raise SourceError(_lacking(name, self._camera))
        if kind == "enumeration":
            words = self._camera.choices(name)
            if value not in words:
                raise NodeError(f"expected {' or '.join(words)}{nearest(value, words)}")
        elif kind == "boolean" and value.lower() not in ("true", "false"):
            raise NodeError("expected true or false")
        elif kind in ("integer", "float"):
            lowest, highest = self._camera.limits(name)
            what = "a whole number" if kind == "integer" else "a number"
            try:
                number = int(value, 0) if kind == "integer" else float(value)
            except ValueError:
                number = math.nan
            if not lowest <= number <= highest:
                raise NodeError(f"expected {what} from {lowest:.10g} to {highest:.10g}")


def _lacking(name: str, camera: Transport) -> str:
    return f"the camera has no node {name}{nearest(name, camera.names())}; see what it has in its maker's viewer"


def _require_readable(camera: Transport) -> None:
    try:
        if camera.format_code() in FORMATS:
            return
        found = camera.read("PixelFormat")
    except NodeError as error:
        raise SourceError(f"the camera does not say which pixel format it has: {error}; update its firmware") from None
    fit = [name for name in camera.choices("PixelFormat") if name in NAMES]
    remedy = f"choose one of {', '.join(fit)} by pixel-format=…" if fit else "it has no other that is"
    raise SourceError(f"the camera is set to the pixel format {found}, which is not read; {remedy}")


def _set_region(nodes: Nodes, region: tuple[int, int, int, int]) -> None:
    left, top, width, height = region
    for name in ("OffsetX", "OffsetY"):  # or the old ones would not leave room for the new size
        if nodes.has(name):
            nodes.write(name, "0")
    nodes.write("Width", str(width))
    nodes.write("Height", str(height))
    for name, value in (("OffsetX", left), ("OffsetY", top)):
        if value or nodes.has(name):
            nodes.write(name, str(value))


def _set_white_balance(nodes: Nodes, balance: str | tuple[float, float]) -> None:
    if isinstance(balance, str):
        nodes.write("BalanceWhiteAuto", {AUTO: "Continuous", "once": "Once"}[balance])
        return
    if nodes.has("BalanceWhiteAuto"):
        nodes.write("BalanceWhiteAuto", "Off")
    for colour, ratio in zip(("Red", "Blue"), balance, strict=True):
        nodes.write("BalanceRatioSelector", colour)
        nodes.write(nodes.first(("BalanceRatio", "BalanceRatioAbs")), f"{ratio:g}")


def _set_trigger(nodes: Nodes, controls: Controls, trigger: Trigger | None) -> None:
    if trigger not in ("hardware", "software"):
        if nodes.has("TriggerMode"):  # another program may have left it waiting
            _select_frame(nodes)
            nodes.write("TriggerMode", "Off")
        return
    _select_frame(nodes)
    nodes.write("TriggerMode", "On")
    nodes.write("TriggerSource", "Software" if trigger == "software" else controls.trigger_source or "Line1")
    if controls.trigger_edge is not None:
        nodes.write("TriggerActivation", {"rising": "RisingEdge", "falling": "FallingEdge"}[controls.trigger_edge])
    if controls.trigger_delay_us is not None:
        nodes.write(nodes.first(("TriggerDelay", "TriggerDelayAbs")), f"{controls.trigger_delay_us:g}")


def _select_frame(nodes: Nodes) -> None:
    if nodes.is_fit("TriggerSelector", "FrameStart"):
        nodes.write("TriggerSelector", "FrameStart")


def _set_rate(nodes: Nodes, fps: float) -> None:
    """What the camera cannot do is done by letting pictures pass."""
    name = next((name for name in ("AcquisitionFrameRate", "AcquisitionFrameRateAbs") if nodes.has(name)), None)
    if name is None:
        return
    if nodes.has("AcquisitionFrameRateEnable"):
        nodes.write("AcquisitionFrameRateEnable", "true")
    nodes.write(name, f"{min(fps, nodes.highest(name)):g}")


def _number_or_automatic(text: str) -> float | str:
    return AUTO if text == AUTO else float(text)


def _balance(text: str) -> str | tuple[float, float]:
    if text in (AUTO, "once"):
        return text
    red, blue = text.split(",")
    return float(red), float(blue)


def _region(text: str) -> tuple[int, int, int, int]:
    left, top, width, height = (int(number) for number in text.split(","))
    return left, top, width, height


CONTROLS = {
    "exposure-us": Option(
        allowed(_number_or_automatic, lambda value: value == AUTO or 0 < value < math.inf),
        "microseconds above 0, or auto",
    ),
    "gain": Option(
        allowed(_number_or_automatic, lambda value: value == AUTO or math.isfinite(value)), "a number, or auto"
    ),
    "white-balance": Option(
        allowed(_balance, lambda value: isinstance(value, str) or 0 < min(value) <= max(value) < math.inf),
        "auto, once, or RED,BLUE as in 1.5,2.1",
    ),
    "region": Option(
        allowed(_region, lambda value: min(value) >= 0 and min(value[2:]) > 0),
        "LEFT,TOP,WIDTH,HEIGHT in pixels, as in 0,0,640,480",
    ),
    "pixel-format": Option(allowed(str, bool), "a name such as Mono8"),
    "trigger-source": Option(allowed(str, bool), "an input of the camera such as Line1"),
    "trigger-edge": choice("rising", "falling"),
    "trigger-delay-us": Option(allowed(float, lambda value: 0 <= value < math.inf), "microseconds from 0 on"),
}

KNOWN = f"{', '.join(CONTROLS)} and node.NAME for any other node, as in gige://SERIAL?exposure-us=2000&node.GammaEnable=true"
"""For messages."""
