"""What tells whether a camera can be there, without opening it as one: the kernel's word, and a Jetson's daemon."""

from __future__ import annotations

import fcntl
import struct
from pathlib import Path

ARGUS_SOCKET = Path("/tmp/argus_socket")
"""Where NVIDIA's daemon for CSI cameras listens."""

QUERY_CAPABILITY = 0x80685600
"""`VIDIOC_QUERYCAP` of linux/videodev2.h: `_IOR('V', 0, struct v4l2_capability)`, a structure of 104 bytes."""
_CAPABILITY = struct.Struct("16s32s32sIII12x")
"""driver, card, bus, version, capabilities of the whole, capabilities of this node."""
_CAPTURES = 0x00000001 | 0x00001000
"""Video in one plane or several."""
_HAS_OWN = 0x80000000
"""The node says what it can do itself; without, the whole device is what is known."""


def captures(capability: bytes) -> bool:
    """Whether a `struct v4l2_capability` is of a node that gives pictures, and not metadata of them."""
    *_, of_all, of_node = _CAPABILITY.unpack(capability)
    return bool((of_node if of_all & _HAS_OWN else of_all) & _CAPTURES)


def gives_pictures(handle: int) -> bool:
    """`captures` of an open `/dev/video*`. Raises `OSError`, also where it is no such device."""
    capability = bytearray(_CAPABILITY.size)
    fcntl.ioctl(handle, QUERY_CAPABILITY, capability)
    return captures(bytes(capability))
