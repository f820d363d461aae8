"""A build takes no more than is free where GPU and processor share memory; a card keeps TensorRT's own limits."""

from __future__ import annotations

import ctypes
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

import export.tensorrt.build
import export.tensorrt.memory
from export.tensorrt.build import PlanBuilder
from export.tensorrt.memory import MemoryLimits, memory_limits, shares_memory
from stlm_edge.tensorrt import Gpu

from .fake_tensorrt import fake_tensorrt

MEMINFO = "MemTotal:        7802032 kB\nMemFree:          204800 kB\nMemAvailable:    4194304 kB\nBuffers:  9 kB\n"


class Driver:
    """libcuda of a machine whose GPU has memory of its own or not."""

    def __init__(self, *, integrated: int, status: int = 0) -> None:
        self._integrated, self._status = integrated, status

    def cuInit(self, flags: int) -> int:  # noqa: N802 - of the library
        return self._status

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:  # noqa: N802
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        assert attribute == 18
        value._obj.value = self._integrated
        return 0


@pytest.fixture
def meminfo(tmp_path) -> Path:
    (tmp_path / "meminfo").write_text(MEMINFO)
    return tmp_path / "meminfo"


@pytest.mark.parametrize(
    ("driver", "shares"),
    [(Driver(integrated=1), True), (Driver(integrated=0), False), (Driver(integrated=1, status=100), False)],
)
def test_the_driver_says_whether_memory_is_shared(monkeypatch, driver, shares):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    assert shares_memory() is shares


def test_without_a_driver_nothing_is_shared(monkeypatch, meminfo):
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert memory_limits(None, meminfo=meminfo) == MemoryLimits()


def test_half_of_what_is_free_is_for_a_layer_and_that_is_said(monkeypatch, meminfo, caplog):
    monkeypatch.setattr(export.tensorrt.memory, "shares_memory", lambda: True)
    with caplog.at_level(logging.INFO):
        assert memory_limits(None, meminfo=meminfo) == MemoryLimits(workspace=2048, tactics=3072)
    for words in ("4096 MiB are free", "2048 MiB for scratch (--workspace)", "3072 MiB", "sudo init 3", "swap"):
        assert words in caplog.text


def test_what_the_user_says_counts(monkeypatch, meminfo):
    monkeypatch.setattr(export.tensorrt.memory, "shares_memory", lambda: True)
    assert memory_limits(512, meminfo=meminfo) == MemoryLimits(512, 3072)
    assert memory_limits(3500, meminfo=meminfo) == MemoryLimits(3500, 3500)
    monkeypatch.setattr(export.tensorrt.memory, "shares_memory", lambda: False)
    assert memory_limits(512, meminfo=meminfo) == MemoryLimits(512)


def test_no_word_of_free_memory_leaves_it_to_tensorrt(monkeypatch, tmp_path):
    monkeypatch.setattr(export.tensorrt.memory, "shares_memory", lambda: True)
    assert memory_limits(None, meminfo=tmp_path / "none") == MemoryLimits()
    (tmp_path / "meminfo").write_text("MemFree: 5 kB\n")
    assert memory_limits(7, meminfo=tmp_path / "meminfo") == MemoryLimits(7)


def test_a_jetsons_build_is_limited(graph, monkeypatch, tmp_path, meminfo):
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt("10.3.0"))
    monkeypatch.setattr(export.tensorrt.build, "find_gpu", lambda: Gpu("Orin", "sm87"))
    monkeypatch.setattr(export.tensorrt.memory, "shares_memory", lambda: True)
    PlanBuilder().build(graph, tmp_path / "plate.plan")
    limits = json.loads((tmp_path / "plate.plan").read_bytes())["limits"]
    free = int(next(line for line in Path("/proc/meminfo").read_text().splitlines() if "Available" in line).split()[1])
    assert set(limits) == {"WORKSPACE", "TACTIC_DRAM"}
    assert 0 < limits["WORKSPACE"] < limits["TACTIC_DRAM"] < 1024 * 1.1 * free
