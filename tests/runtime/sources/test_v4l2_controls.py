"""Controls of V4L2 cameras, against a driver that is a table: the kernel of most machines has no virtual camera."""

from __future__ import annotations

import errno
import struct

import pytest

from runtime.sources.v4l2 import set_control

EXPOSURE, GAIN, WITHOUT = 0x009A0902, 0x00980913, 0x00980912
LIMITS = {EXPOSURE: (1, 5000), GAIN: (-3, 15)}
QUERY, SET = 0xC0445624, 0xC008561C


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """Control -> value, as the driver has been given it."""
    found: dict[int, int] = {}

    def ioctl(handle: int, request: int, data: bytearray | bytes) -> int:
        control, value = struct.unpack_from("=Ii", data)
        if control not in LIMITS:
            raise OSError(errno.EINVAL, "Invalid argument")
        if request == SET:
            assert len(data) == 8
            if value == 13:
                raise OSError(errno.EBUSY, "Device or resource busy")
            found[control] = value
        else:
            assert request == QUERY and isinstance(data, bytearray) and len(data) == 68
            struct.pack_into("=ii", data, 40, *LIMITS[control])
        return 0

    monkeypatch.setattr("runtime.sources.v4l2.fcntl.ioctl", ioctl)
    return found


def test_control_within_its_range_is_written(written: dict[int, int]) -> None:
    set_control(3, "exposure-us", EXPOSURE, 20, unit_us=100)
    set_control(3, "gain", GAIN, -3)
    set_control(3, "gain", WITHOUT, 0, may_lack=True)
    assert written == {EXPOSURE: 20, GAIN: -3}


def test_what_the_driver_does_not_take_is_a_reason(written: dict[int, int]) -> None:
    with pytest.raises(ValueError, match="exposure-us is 600000, expected 100 to 500000"):
        set_control(3, "exposure-us", EXPOSURE, 6000, unit_us=100)
    with pytest.raises(ValueError, match=r"has no control for gain \(Invalid argument\); see: v4l2-ctl --list-ctrls"):
        set_control(3, "gain", WITHOUT, 1)
    with pytest.raises(ValueError, match="its driver refuses gain: Device or resource busy"):
        set_control(3, "gain", GAIN, 13)
    assert written == {}
