"""GigE Vision and USB3 Vision by the library Aravis, through its C interface.

No more than the library of the distribution is needed, whatever Python the environment has: the usual way, PyGObject,
comes with the system's Python alone or is compiled. All functions that are used have been there since Aravis 0.8.20.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_double, c_int, c_int64, c_size_t, c_uint, c_uint32, c_uint64, c_void_p
from functools import cache
from typing import Any

import numpy as np

from runtime.sources.genicam.transport import Delivery, NodeError, NodeKind, Seen
from stlm_edge.errors import SourceError, shortly

LIBRARY = "libaravis-0.8.so.0"
INSTALL = "sudo apt install libaravis-0.8-0"

PROTOCOLS = {"gige": "GigEVision", "u3v": "USB3Vision"}
"""Scheme → what Aravis calls it."""

_BUFFER_BYTES, _FEWEST, _MOST = 256 << 20, 4, 64
"""Memory for pictures that have come and were not taken, and how many there may be."""
_SUCCESS = 0
_PLAIN_IMAGE = 1
"""`ArvBufferStatus` and `ArvBufferPayloadType`."""

_KINDS: tuple[tuple[str, NodeKind], ...] = (
    ("Enumeration", "enumeration"),
    ("Command", "command"),
    ("Boolean", "boolean"),
    ("String", "string"),
    ("Int", "integer"),
    ("Float", "float"),
    ("Converter", "float"),
    ("SwissKnife", "float"),
)
"""Beginning of a node's class, behind `ArvGc` and `Masked`, → its kind."""

_NAMED = re.compile(
    rb"<(?:Integer|IntReg|MaskedIntReg|IntConverter|IntSwissKnife|Float|FloatReg|Converter|SwissKnife|Boolean|"
    rb"Enumeration|Command|String|StringReg)\s[^>]*\bName=\"(\w+)\""
)


class _Error(ctypes.Structure):
    """`GError`."""

    _fields_ = (("domain", c_uint32), ("code", c_int), ("message", c_char_p))


_ERROR = POINTER(POINTER(_Error))
_ON_LOSS = ctypes.CFUNCTYPE(None, c_void_p, c_void_p)

_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "arv_update_device_list": (None, ()),
    "arv_get_n_devices": (c_uint, ()),
    "arv_get_device_id": (c_char_p, (c_uint,)),
    "arv_get_device_vendor": (c_char_p, (c_uint,)),
    "arv_get_device_model": (c_char_p, (c_uint,)),
    "arv_get_device_serial_nbr": (c_char_p, (c_uint,)),
    "arv_get_device_address": (c_char_p, (c_uint,)),
    "arv_get_device_protocol": (c_char_p, (c_uint,)),
    "arv_camera_new": (c_void_p, (c_char_p, _ERROR)),
    "arv_camera_get_device": (c_void_p, (c_void_p,)),
    "arv_camera_get_payload": (c_uint, (c_void_p, _ERROR)),
    "arv_camera_create_stream": (c_void_p, (c_void_p, c_void_p, c_void_p, _ERROR)),
    "arv_camera_start_acquisition": (None, (c_void_p, _ERROR)),
    "arv_camera_stop_acquisition": (None, (c_void_p, _ERROR)),
    "arv_gv_device_is_controller": (c_int, (c_void_p,)),
    "arv_device_get_genicam_xml": (c_void_p, (c_void_p, POINTER(c_size_t))),
    "arv_device_get_feature": (c_void_p, (c_void_p, c_char_p)),
    "arv_device_execute_command": (None, (c_void_p, c_char_p, _ERROR)),
    "arv_device_get_integer_feature_value": (c_int64, (c_void_p, c_char_p, _ERROR)),
    "arv_device_get_integer_feature_bounds": (
        None,
        (c_void_p, c_char_p, POINTER(c_int64), POINTER(c_int64), _ERROR),
    ),
    "arv_device_get_float_feature_bounds": (
        None,
        (c_void_p, c_char_p, POINTER(c_double), POINTER(c_double), _ERROR),
    ),
    "arv_device_dup_available_enumeration_feature_values_as_strings": (
        c_void_p,
        (c_void_p, c_char_p, POINTER(c_uint), _ERROR),
    ),
    "arv_gc_feature_node_get_value_as_string": (c_char_p, (c_void_p, _ERROR)),
    "arv_gc_feature_node_set_value_from_string": (None, (c_void_p, c_char_p, _ERROR)),
    "arv_stream_push_buffer": (None, (c_void_p, c_void_p)),
    "arv_stream_timeout_pop_buffer": (c_void_p, (c_void_p, c_uint64)),
    "arv_buffer_new_allocate": (c_void_p, (c_size_t,)),
    "arv_buffer_get_status": (c_int, (c_void_p,)),
    "arv_buffer_get_payload_type": (c_int, (c_void_p,)),
    "arv_buffer_get_data": (c_void_p, (c_void_p, POINTER(c_size_t))),
    "arv_buffer_get_frame_id": (c_uint64, (c_void_p,)),
    "arv_buffer_get_image_width": (c_int, (c_void_p,)),
    "arv_buffer_get_image_height": (c_int, (c_void_p,)),
    "arv_buffer_get_image_pixel_format": (c_uint32, (c_void_p,)),
    # Of GLib, which the library brings into the process.
    "g_object_unref": (None, (c_void_p,)),
    "g_error_free": (None, (POINTER(_Error),)),
    "g_free": (None, (c_void_p,)),
    "g_type_name_from_instance": (c_char_p, (c_void_p,)),
    "g_signal_connect_data": (c_uint64, (c_void_p, c_char_p, _ON_LOSS, c_void_p, c_void_p, c_int)),
    "g_signal_handler_disconnect": (None, (c_void_p, c_uint64)),
}


@cache
def load() -> ctypes.CDLL:
    """The library, with the types of its functions. Raises `SourceError`."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise SourceError(
            f"found no {LIBRARY} that can be loaded ({shortly(error)}), expected Aravis for gige:// and u3v://; "
            f"{INSTALL}"
        ) from None
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def cameras_seen() -> list[Seen]:
    """The cameras that answer at present; that takes about a second. Raises `SourceError`."""
    library = load()
    library.arv_update_device_list()
    schemes = {protocol: scheme for scheme, protocol in PROTOCOLS.items()}
    found = []
    for index in range(library.arv_get_n_devices()):
        protocol = _text(library.arv_get_device_protocol(index))
        if protocol in schemes:
            serial = _text(library.arv_get_device_serial_nbr(index))
            vendor, model = _text(library.arv_get_device_vendor(index)), _text(library.arv_get_device_model(index))
            address = _text(library.arv_get_device_address(index))
            found.append(Seen(f"{schemes[protocol]}://{serial or address}", vendor, model, serial, address))
    return found


class AravisCamera:
    """A camera that Aravis has opened; see `Transport`."""

    def __init__(self, scheme: str, place: str) -> None:
        """
        Args:
            place: serial number, name or, with `gige`, IP address.
        Raises:
            SourceError: if there is no such camera, or it belongs to another program.
        """
        self._library = load()
        self._lock = threading.Lock()
        self._stream: int | None = None
        self.loss: str | None = None
        try:
            self._camera: int | None = _checked(self._library.arv_camera_new, _device_id(scheme, place).encode())
        except NodeError as error:
            raise SourceError(f"{scheme}://{place} cannot be opened: {_remedied(str(error), scheme)}") from None
        if self._camera is None:
            raise SourceError(f"{scheme}://{place} cannot be opened: no camera answers there; {_LOOK}")
        self._device = self._library.arv_camera_get_device(self._camera)
        if scheme == "gige" and not self._library.arv_gv_device_is_controller(self._device):
            self._library.g_object_unref(self._camera)
            raise SourceError(f"{scheme}://{place} cannot be opened: another program has it; end that")
        self._on_loss = _ON_LOSS(self._lose)  # kept, since C calls it
        self._handler = self._library.g_signal_connect_data(self._device, b"control-lost", self._on_loss, None, None, 0)

    def names(self) -> Sequence[str]:
        size = c_size_t()
        start = self._library.arv_device_get_genicam_xml(self._device, byref(size))
        return [name.decode() for name in _NAMED.findall(ctypes.string_at(start, size.value))] if start else []

    def kind(self, node: str) -> NodeKind | None:
        found = self._library.arv_device_get_feature(self._device, node.encode())
        if found is None:
            return None
        name = _text(self._library.g_type_name_from_instance(found)).removeprefix("ArvGc").removeprefix("Masked")
        return next((kind for start, kind in _KINDS if name.startswith(start)), None)

    def choices(self, node: str) -> list[str]:
        count = c_uint()
        name = "arv_device_dup_available_enumeration_feature_values_as_strings"
        start = _checked(getattr(self._library, name), self._device, node.encode(), byref(count))
        try:
            words = ctypes.cast(start, POINTER(c_char_p))
            return [_text(words[index]) for index in range(count.value)]
        finally:
            self._library.g_free(start)

    def limits(self, node: str) -> tuple[float, float]:
        if self.kind(node) == "integer":
            least, most = c_int64(), c_int64()
            _checked(
                self._library.arv_device_get_integer_feature_bounds,
                self._device,
                node.encode(),
                byref(least),
                byref(most),
            )
            return least.value, most.value
        lowest, highest = c_double(), c_double()
        _checked(
            self._library.arv_device_get_float_feature_bounds,
            self._device,
            node.encode(),
            byref(lowest),
            byref(highest),
        )
        return lowest.value, highest.value

    def read(self, node: str) -> str:
        return _text(_checked(self._library.arv_gc_feature_node_get_value_as_string, self._node(node)))

    def write(self, node: str, text: str) -> None:
        with self._lock:  # a trigger may come from another thread while the camera is closed
            if self._camera is None:
                raise NodeError("it is closed")
            if self.kind(node) == "command":
                _checked(self._library.arv_device_execute_command, self._device, node.encode())
            else:
                _checked(self._library.arv_gc_feature_node_set_value_from_string, self._node(node), text.encode())

    def format_code(self) -> int:
        value: int = _checked(self._library.arv_device_get_integer_feature_value, self._device, b"PixelFormat")
        return value & 0xFFFFFFFF

    def start(self) -> None:
        self._stream = _checked(self._library.arv_camera_create_stream, self._camera, None, None)
        payload = _checked(self._library.arv_camera_get_payload, self._camera)
        for _ in range(max(_FEWEST, min(_MOST, _BUFFER_BYTES // max(1, payload)))):
            self._library.arv_stream_push_buffer(self._stream, self._library.arv_buffer_new_allocate(payload))
        _checked(self._library.arv_camera_start_acquisition, self._camera)

    def take(self, timeout_s: float) -> Delivery | None:
        library = self._library
        buffer = library.arv_stream_timeout_pop_buffer(self._stream, int(1e6 * timeout_s))
        if buffer is None:
            return None
        try:
            counter = library.arv_buffer_get_frame_id(buffer)
            if library.arv_buffer_get_status(buffer) != _SUCCESS:
                return Delivery(None, counter=counter)
            count = c_size_t()
            start = library.arv_buffer_get_data(buffer, byref(count))
            return Delivery(
                np.ctypeslib.as_array(ctypes.cast(start, POINTER(ctypes.c_uint8)), (count.value,)).copy(),
                code=library.arv_buffer_get_image_pixel_format(buffer),
                size=(library.arv_buffer_get_image_height(buffer), library.arv_buffer_get_image_width(buffer)),
                counter=counter,
                is_plain=library.arv_buffer_get_payload_type(buffer) == _PLAIN_IMAGE,
            )
        finally:
            library.arv_stream_push_buffer(self._stream, buffer)

    def close(self) -> None:
        with self._lock:
            if self._camera is None:
                return
            if self._stream is not None:
                if self.loss is None:  # one that is gone would be asked in vain for seconds
                    self._library.arv_camera_stop_acquisition(self._camera, None)
                self._library.g_object_unref(self._stream)
            self._library.g_signal_handler_disconnect(self._device, self._handler)
            self._library.g_object_unref(self._camera)
            self._camera = self._stream = None

    def _node(self, name: str) -> int:
        node: int | None = self._library.arv_device_get_feature(self._device, name.encode())
        if node is None:
            raise NodeError("there is no such node")
        return node

    def _lose(self, _device: int | None, _data: int | None) -> None:
        self.loss = "it does not answer any more, so it was unplugged or another program has taken it"


_LOOK = "check its power, cable and address, and list those there are: stlm doctor"


def _device_id(scheme: str, place: str) -> str:
    """What Aravis calls the camera; an address that nobody answers to by broadcast is asked by itself."""
    library = load()
    library.arv_update_device_list()
    found = []
    for index in range(library.arv_get_n_devices()):
        if _text(library.arv_get_device_protocol(index)) == PROTOCOLS[scheme]:
            identity, serial, address = (
                _text(getattr(library, f"arv_get_device_{what}")(index)) for what in ("id", "serial_nbr", "address")
            )
            if place in (identity, serial, address):
                return identity
            found.append(serial or address)
    if scheme == "gige" and re.fullmatch(r"\d+(\.\d+){3}", place):
        return place
    seen = f"those that do: {', '.join(found)}" if found else "none does"
    raise NodeError(f"no camera {place!r} answers, {seen}")


def _remedied(reason: str, scheme: str) -> str:
    if "access" in reason.lower() or "control" in reason.lower():
        remedy = "another program may have it: end that"
        return f"{reason}; {remedy}" + (
            "" if scheme == "gige" else ", or you may not use it: install Aravis' udev rule"
        )
    return f"{reason}; {_LOOK}"


def _checked(function: Any, *arguments: Any) -> Any:
    """Call what takes a place for its error last. Raises `NodeError`."""
    error = POINTER(_Error)()
    result = function(*arguments, byref(error))
    if error:
        reason = " ".join(_text(error.contents.message).split())
        load().g_error_free(error)
        raise NodeError(reason)
    return result


def _text(data: bytes | None) -> str:
    return (data or b"").decode(errors="replace")
