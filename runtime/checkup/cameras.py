"""Cameras that the kernel knows. Their devices are opened for a moment and asked what they are, nothing is captured."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from runtime.checkup.finding import Finding
from runtime.checkup.probe import ask

_ANSWER_S = 10.0

_QUERYCAP = 0x80685600
"""`VIDIOC_QUERYCAP` of linux/videodev2.h: `_IOR('V', 0, struct v4l2_capability)`, a structure of 104 bytes."""
_CAPABILITY = struct.Struct("16s32s32sIII12x")
"""driver, card, bus, version, capabilities of the whole, capabilities of this node."""
_CAPTURES = 0x00000001 | 0x00001000
"""Video in one plane or several."""
_HAS_OWN = 0x80000000
"""The node says what it can do itself; without, the whole device is what is known."""


def find_cameras(root: Path) -> list[Finding]:
    """Every `/dev/video*` with its name, and whether it can be read.

    Args:
        root: the folder that has `dev` and `sys`.
    """
    devices = sorted((root / "dev").glob("video[0-9]*"), key=lambda path: (len(path.name), path.name))
    if not devices:
        return [Finding("camera", "missing", "no /dev/video*", "plug one in; network cameras need none of them")]
    return [_camera(device, root) for device in devices]


def find_csi(root: Path) -> list[Finding]:
    """The daemon that a Jetson's CSI cameras are reached by.

    Args:
        root: the folder that has `tmp`.
    """
    if (root / "tmp/argus_socket").exists():
        return [Finding("CSI cameras", "ok", "nvargus-daemon is running")]
    remedy = "sudo systemctl restart nvargus-daemon; in a container, mount /tmp/argus_socket"
    return [Finding("CSI cameras", "missing", "no /tmp/argus_socket, so nvargus-daemon is not running", remedy)]


def captures(capability: bytes) -> bool:
    """Whether a `struct v4l2_capability` is of a node that gives pictures, and not metadata of them."""
    *_, of_all, of_node = _CAPABILITY.unpack(capability)
    return bool((of_node if of_all & _HAS_OWN else of_all) & _CAPTURES)


def query(device: str) -> bool:
    """`captures` of a device. Raises `OSError`."""
    handle = os.open(device, os.O_RDWR | os.O_NONBLOCK)
    try:
        capability = bytearray(_CAPABILITY.size)
        fcntl.ioctl(handle, _QUERYCAP, capability)
    finally:
        os.close(handle)
    return captures(bytes(capability))


def _camera(device: Path, root: Path) -> Finding:
    subject, name = f"camera {device.name.removeprefix('video')}", _name(device, root)
    # A driver that hangs does so in another process.
    answer = ask(__name__, f"module.query({str(device)!r})", timeout_s=_ANSWER_S)
    if answer.failure is not None and answer.failure.startswith("PermissionError"):
        remedy = "sudo usermod -aG video $USER, then log in again; in a container, give it the device"
        return Finding(subject, "broken", f"{name}, permission denied for {device}", remedy)
    if answer.failure is not None:
        found = f"{name}, {device} does not say what it is ({answer.failure})"
        return Finding(subject, "broken", found, "plug it in again, or look for its driver in dmesg")
    if not answer.value:
        return Finding(subject, "ok", f"{name}, gives no pictures (metadata of the camera next to it)")
    return Finding(subject, "ok", name)


def _name(device: Path, root: Path) -> str:
    try:
        return (root / "sys/class/video4linux" / device.name / "name").read_text(errors="replace").strip()
    except OSError:
        return "a camera without a name"
