"""Cameras behind a vendor's GenTL producer, a `.cti` file, by harvesters and genicam, the standard's own packages."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from genicam import genapi, gentl
from harvesters.core import Callback, Harvester, ImageAcquirer

from runtime.sources.genicam.transport import FOLDERS_VARIABLE, Delivery, NodeError, NodeKind, Seen
from stlm_edge.errors import SourceError, shortly
from stlm_edge.files import kind_of

logger = logging.getLogger(__name__)

_BUFFER_BYTES, _FEWEST, _MOST = 256 << 20, 4, 64
"""Memory for pictures that have come and were not taken, and how many there may be."""

_KINDS: dict[str, NodeKind] = {
    "IInteger": "integer",
    "IFloat": "float",
    "IBoolean": "boolean",
    "IEnumeration": "enumeration",
    "ICommand": "command",
    "IString": "string",
}
_PLAIN_IMAGE = 1
"""`PAYLOAD_TYPE_IMAGE` of GenTL."""

_WHERE = re.compile(r" : \w+ thrown in node .*")
"""What GenApi adds about its own source."""


class _Incomplete(Callback):  # type: ignore[misc]  # the package has no types
    """Remembers each buffer that harvesters throws away because packets of it are missing."""

    def __init__(self) -> None:
        self.seen: deque[Delivery] = deque()

    def emit(self, context: Any = None) -> None:  # noqa: ARG002  # the package's own signature
        self.seen.append(Delivery(None))


class ProducerCamera:
    """A camera of a producer; see `Transport`."""

    def __init__(self, file: Path, serial: str) -> None:
        """
        Args:
            serial: may be empty where the producer has one camera.
        Raises:
            SourceError: if there is no such producer or camera, or it belongs to another program.
        """
        self.loss: str | None = None
        self._lock = threading.Lock()
        self._name = f"genicam:{file}#{serial}".rstrip("#")
        self._harvester = _producer(file)
        self._acquirer: ImageAcquirer | None = None
        try:
            self._acquirer = self._harvester.create(self._chosen(file, serial))
        except gentl.GenericException as error:
            reason = f"{_reason(error)}; another program may have it: end that"
            raise SourceError(f"{self._name} cannot be opened: {reason}") from None
        finally:
            if self._acquirer is None:
                self._harvester.reset()
        self._nodes = self._acquirer.remote_device.node_map
        self._incomplete = _Incomplete()
        self._acquirer.add_callback(ImageAcquirer.Events.INCOMPLETE_BUFFER, self._incomplete)

    def names(self) -> Sequence[str]:
        return [each.node.name for each in self._nodes.nodes if type(each).__name__ in _KINDS]

    def kind(self, node: str) -> NodeKind | None:
        return _KINDS.get(type(self._nodes.get_node(node)).__name__) if self._nodes.has_node(node) else None

    def choices(self, node: str) -> list[str]:
        return list(self._nodes.get_node(node).symbolics)

    def limits(self, node: str) -> tuple[float, float]:
        try:
            found = self._nodes.get_node(node)
            return found.min, found.max
        except genapi.GenericException as error:
            raise NodeError(_reason(error)) from None

    def read(self, node: str) -> str:
        try:
            return str(self._nodes.get_node(node).to_string())
        except genapi.GenericException as error:
            raise NodeError(_reason(error)) from None

    def write(self, node: str, text: str) -> None:
        with self._lock:  # a trigger may come from another thread while the camera is closed
            if self._acquirer is None:
                raise NodeError("it is closed")
            try:
                found = self._nodes.get_node(node)
                if self.kind(node) == "command":
                    found.execute()
                else:
                    found.from_string(text)
            except (genapi.GenericException, gentl.GenericException) as error:
                raise NodeError(_reason(error)) from None

    def format_code(self) -> int:
        try:
            return int(self._nodes.get_node("PixelFormat").get_int_value())
        except genapi.GenericException as error:
            raise NodeError(_reason(error)) from None

    def start(self) -> None:
        assert self._acquirer is not None
        try:
            payload = int(self.read("PayloadSize")) if self.kind("PayloadSize") else _BUFFER_BYTES
            wanted = max(_FEWEST, min(_MOST, _BUFFER_BYTES // max(1, payload)))
            self._acquirer.num_buffers = max(wanted, self._acquirer.min_num_buffers)
            self._acquirer.start()
        except (genapi.GenericException, gentl.GenericException) as error:
            raise NodeError(_reason(error)) from None

    def take(self, timeout_s: float) -> Delivery | None:
        assert self._acquirer is not None
        try:
            buffer = self._acquirer.try_fetch(timeout=timeout_s)
        except gentl.GenericException as error:
            self.loss = _reason(error)
            return None
        if buffer is None:
            return self._incomplete.seen.popleft() if self._incomplete.seen else None
        with buffer:
            (part, *_) = buffer.payload.components or (None,)
            if part is None or part.data is None:
                raise SourceError(
                    f"{self._name} delivers {buffer.payload_type} without a picture, expected one; set it to send "
                    "plain pictures"
                )
            return Delivery(
                np.array(part.data).reshape(-1).view(np.uint8),
                code=int(part.data_format_value),
                size=(part.height, part.width),
                counter=buffer.module.frame_id,
                is_plain=buffer.module.payload_type == _PLAIN_IMAGE,
            )

    def close(self) -> None:
        with self._lock:
            if self._acquirer is None:
                return
            acquirer, self._acquirer = self._acquirer, None
            try:
                acquirer.destroy()
            finally:
                self._harvester.reset()

    def _chosen(self, file: Path, serial: str) -> int:
        """Which of the producer's cameras it is. Raises `SourceError`."""
        serials = [_info(device, "serial_number") for device in self._harvester.device_info_list]
        if serial in serials:
            return serials.index(serial)
        if not serial and len(serials) == 1:
            return 0
        seen = f"it sees the serial numbers {', '.join(serials)}" if serials else "it sees no camera"
        raise SourceError(
            f"{self._name} cannot be opened: {seen}; write genicam:{file}#SERIAL, and check the camera's power and "
            "cable"
        )


def cameras_seen() -> list[Seen]:
    """The cameras of the producers that the environment names; what is none of them is logged."""
    found = []
    for folder in filter(None, os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep)):
        for file in sorted(Path(folder).glob("*.cti")):
            try:
                harvester = _producer(file)
            except SourceError as error:  # which says nothing of the others
                logger.warning("%s", error)
                continue
            for device in harvester.device_info_list:
                vendor, model, serial = (_info(device, name) for name in ("vendor", "model", "serial_number"))
                found.append(Seen(f"genicam:{file}#{serial}", vendor, model, serial))
            harvester.reset()
    return found


def _producer(file: Path) -> Harvester:
    """With its cameras listed. Raises `SourceError`."""
    if not file.is_file():
        found = f"it is {kind_of(file.stat().st_mode)}" if file.exists() else "there is no such file"
        raise SourceError(
            f"genicam:{file} cannot be opened: {found}, expected a vendor's GenTL producer; install its software, and "
            f"look for *.cti in the folders of {FOLDERS_VARIABLE}"
        )
    harvester = Harvester()
    try:
        harvester.add_file(str(file))
        harvester.update()
    except (gentl.GenericException, OSError) as error:
        harvester.reset()
        raise SourceError(
            f"genicam:{file} cannot be opened: {_reason(error)}; give a GenTL producer (.cti) for this kind of machine"
        ) from None
    # Harvesters takes any file, and logs what is wrong with it where nobody reads it.
    reason = None if harvester.device_info_list else _unloadable(file)
    if reason is not None:
        harvester.reset()
        raise SourceError(
            f"genicam:{file} cannot be opened: found no library that this machine loads ({reason}), expected a GenTL "
            "producer; give a vendor's .cti for this kind of machine"
        )
    return harvester


def _unloadable(file: Path) -> str | None:
    """Why a file cannot be a producer; None if it can."""
    producer = gentl.GenTLProducer.create_producer()
    try:
        producer.open(str(file))
    except gentl.LoadLibraryException as error:
        return re.sub(r"^.*Failed to load CTI file; | \(ID: -?\d+\)$", "", _reason(error))
    except gentl.GenericException:  # it is one; what ails it is told by whoever opens it
        return None
    producer.close()
    return None


def _info(device: Any, name: str) -> str:
    try:
        return str(getattr(device, name))
    except gentl.GenericException:
        return ""


def _reason(error: Exception) -> str:
    return shortly(Exception(_WHERE.sub("", str(error))))
