"""Drivers that start, do not start, or take the process with them; and the board below."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.checkup.nvidia import find_driver, find_jetson

from .conftest import Driver


def states(root: Path) -> list[tuple[str, str, str]]:
    return [(finding.subject, finding.state, finding.found) for finding in find_driver(root)[0]]


def test_gpu_of_a_driver_that_starts(driver: Driver, tmp_path: Path) -> None:
    driver()
    version = tmp_path / "proc/driver/nvidia/version"
    version.parent.mkdir(parents=True)
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Release\nGCC version: 12.3.0\n")
    assert states(tmp_path) == [
        ("NVIDIA driver", "ok", "for CUDA 13.2, version 580.65.06"),
        ("GPU", "ok", "Orin with 16 multiprocessors, sm87"),
    ]


def test_driver_without_a_gpu(driver: Driver, tmp_path: Path) -> None:
    driver(status=100)
    assert states(tmp_path) == [("NVIDIA driver", "ok", "for CUDA 13.2"), ("GPU", "missing", "the driver offers none")]


@pytest.mark.parametrize(
    ("status", "start", "found"),
    [
        (803, "", "for CUDA 13.2, does not start (CUDA error 803)"),
        (0, "abort()", "libcuda ends its process by SIGABRT"),
    ],
)
def test_driver_that_does_not_start(driver: Driver, tmp_path: Path, status: int, start: str, found: str) -> None:
    driver(status=status, start=start)
    assert states(tmp_path) == [("NVIDIA driver", "broken", found)]


@pytest.mark.heavy
def test_damaged_driver_counts_as_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "libcuda.so.1").write_bytes(b"not a library")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    ((subject, state, found),) = states(tmp_path)
    assert (subject, state) == ("NVIDIA driver", "missing")
    assert "libcuda.so.1" in found


def test_jetson_is_told_by_its_release_and_model(tmp_path: Path) -> None:
    assert find_jetson(tmp_path) == []
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.3, GCID: 38968081\n# KERNEL: oot\n")
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_bytes(b"NVIDIA Jetson AGX Orin Developer Kit\0")
    (jetson,) = find_jetson(tmp_path)
    assert jetson.found == "NVIDIA Jetson AGX Orin Developer Kit, R36 (release), REVISION: 4.3, GCID: 38968081"


def test_other_board_with_a_device_tree_is_no_jetson(tmp_path: Path) -> None:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_bytes(b"Raspberry Pi 5\0")
    assert find_jetson(tmp_path) == []
