"""A build takes no more than is free where GPU and processor share memory; a card keeps TensorRT's own limits."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest

import export.tensorrt.build
from export.tensorrt.build import PlanBuilder
from export.tensorrt.memory import MemoryLimits, memory_limits
from stlm_edge.errors import ConfigError
from stlm_edge.tensorrt import Gpu

from ...fake_tensorrt import fake_tensorrt

ORIN = Gpu("Orin", "sm87", 8, shares_memory=True)
MEMINFO = "MemTotal:        7802032 kB\nMemFree:          204800 kB\nMemAvailable:    4194304 kB\nBuffers:  9 kB\n"


@pytest.fixture
def meminfo(tmp_path) -> Path:
    (tmp_path / "meminfo").write_text(MEMINFO)
    return tmp_path / "meminfo"


@pytest.mark.parametrize("gpu", [None, Gpu("NVIDIA GeForce RTX 3090", "sm86")])
def test_where_nothing_is_shared_the_limits_are_tensorrts(meminfo, gpu):
    assert memory_limits(None, gpu, meminfo=meminfo) == MemoryLimits()
    assert memory_limits(512, gpu, meminfo=meminfo) == MemoryLimits(512)


def test_half_of_what_is_free_is_for_a_layer_and_that_is_said(meminfo, caplog):
    with caplog.at_level(logging.INFO):
        assert memory_limits(None, ORIN, meminfo=meminfo) == MemoryLimits(workspace=2048, tactics=3072)
    for words in ("4096 MiB are free", "2048 MiB for scratch (--workspace)", "3072 MiB", "sudo init 3", "swap"):
        assert words in caplog.text


def test_what_the_user_says_counts(meminfo):
    assert memory_limits(512, ORIN, meminfo=meminfo) == MemoryLimits(512, 3072)
    assert memory_limits(3500, ORIN, meminfo=meminfo) == MemoryLimits(3500, 3500)
    with pytest.raises(ConfigError, match="found --workspace 5000, only 4096 MiB are free"):
        memory_limits(5000, ORIN, meminfo=meminfo)


def test_no_word_of_free_memory_leaves_it_to_tensorrt(tmp_path):
    assert memory_limits(None, ORIN, meminfo=tmp_path / "none") == MemoryLimits()
    (tmp_path / "meminfo").write_text("MemFree: 5 kB\n")
    assert memory_limits(7, ORIN, meminfo=tmp_path / "meminfo") == MemoryLimits(7)


def test_a_jetsons_build_is_limited(graph, monkeypatch, tmp_path, meminfo):
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt("10.3.0"))
    monkeypatch.setattr(export.tensorrt.build, "find_gpu", lambda: ORIN)
    PlanBuilder().build(graph, tmp_path / "plate.plan")
    limits = json.loads((tmp_path / "plate.plan").read_bytes())["limits"]
    free = int(next(line for line in Path("/proc/meminfo").read_text().splitlines() if "Available" in line).split()[1])
    assert set(limits) == {"WORKSPACE", "TACTIC_DRAM"}
    assert 0 < limits["WORKSPACE"] < limits["TACTIC_DRAM"] < 1024 * 1.1 * free
