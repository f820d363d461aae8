"""The GPU of a machine as its driver tells it; the driver is a fake, a machine of the tests need not have one."""

from __future__ import annotations

import ctypes
import dataclasses
import logging
from typing import Any

import pytest

from stlm_edge.tensorrt import Gpu, find_gpu


class FakeDriver:
    """Answers as libcuda does on a Jetson AGX Orin."""

    def __init__(self, *, starts: int = 0, devices: int = 1) -> None:
        self.starts = starts
        self.devices = devices

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.starts

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:  # noqa: N802
        device._obj.value = 7
        return 0 if ordinal < self.devices else 101

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:  # noqa: N802
        assert device.value == 7
        name.value = b"Orin"[: size - 1]
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        value._obj.value = {16: 8, 18: 1, 75: 8, 76: 7}[attribute]
        return 0

    def cuDeviceGetUuid(self, content: Any, device: Any) -> int:  # noqa: N802
        assert device.value == 7
        content.raw = bytes.fromhex("9196782c2fae91c7c24fe9a05e4369a7")
        return 0


class OlderDriver(FakeDriver):
    """Does not tell the number that NVML knows a GPU by."""

    @property
    def cuDeviceGetUuid(self) -> Any:  # noqa: N802
        raise AttributeError("undefined symbol: cuDeviceGetUuid")


@pytest.fixture
def install(monkeypatch):
    def do(driver: FakeDriver | None) -> None:
        def load(name: str) -> FakeDriver:
            if driver is None:
                raise OSError(f"{name}: cannot open shared object file")
            return driver

        monkeypatch.setattr(ctypes, "CDLL", load)

    return do


def test_gpu_is_named_as_cuda_and_nvml_name_it(install):
    install(FakeDriver())
    orin = Gpu("Orin", "sm87", multiprocessors=8, shares_memory=True)
    assert find_gpu() == dataclasses.replace(orin, uuid="GPU-9196782c-2fae-91c7-c24f-e9a05e4369a7")
    assert str(find_gpu()) == "Orin with 8 multiprocessors"
    install(OlderDriver())
    assert find_gpu() == orin


@pytest.mark.parametrize("driver", [None, FakeDriver(starts=100), FakeDriver(devices=0)])
def test_no_driver_or_no_gpu(install, driver, caplog):
    install(driver)
    with caplog.at_level(logging.WARNING):
        assert find_gpu() is None
    assert caplog.text == ""


def test_driver_that_does_not_start_is_told(install, caplog):
    install(FakeDriver(starts=803))
    assert find_gpu() is None
    assert "CUDA error 803" in caplog.text
