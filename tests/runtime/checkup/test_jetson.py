"""What Jetsons say of themselves; the files are those of real boards, as their users have published them."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime import doctor
from runtime.checkup.jetson import find_jetpack, find_memory, find_power

AGX_ORIN = (
    "# R36 (release), REVISION: 4.0, GCID: 37537400, BOARD: generic, EABI: aarch64, DATE: Fri Sep 13 04:36:44 UTC"
)
XAVIER = (
    "# R35 (release), REVISION: 3.1, GCID: 32790763, BOARD: t186ref, EABI: aarch64, DATE: Wed Mar 15 07:54:12 UTC 2023"
)
NANO = (
    "# R32 (release), REVISION: 7.1, GCID: 29689809, BOARD: t186ref, EABI: aarch64, DATE: Wed Feb  2 21:33:23 UTC 2022"
)
THOR = "# R38 (release), REVISION: 2.2, GCID: 41844464, BOARD: generic, EABI: aarch64"
PACKAGES = """\
Package: nvidia-jetpack-dev
Status: install ok installed
Version: 6.9+b1

Package: nvidia-jetpack
Status: {state}
Priority: standard
Section: metapackages
Maintainer: NVIDIA Corporation
Architecture: arm64
Source: nvidia-jetpack (6.2.1)
Version: 6.2.1+b38
Depends: nvidia-jetpack-runtime (= 6.2.1+b38), nvidia-jetpack-dev (= 6.2.1+b38)

Package: nvidia-l4t-core
Status: install ok installed
Version: 36.4.4-20250616085344
"""
POWER_MODELS = """\
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
GPU MAX_FREQ 612000000
< POWER_MODEL ID=1 NAME=25W >
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
< PM_CONFIG DEFAULT=1 >
"""
MEMORY = """\
MemTotal:        7990304 kB
MemFree:          201260 kB
MemAvailable:    {free} kB
SwapTotal:       3995136 kB
SwapFree:        {swap} kB
Hugepagesize:       2048 kB
"""


def write(root: Path, **files: str) -> Path:
    """Files below a folder; `__` stands for a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("release", "found"),
    [
        (AGX_ORIN, "6.1, Jetson Linux 36.4.0"),
        ("# R36 (release), REVISION: 4.3, GCID: 38968081", "6.2, Jetson Linux 36.4.3"),
        ("# R36 (release), REVISION: 5.0, GCID: 1", "6.2.2, Jetson Linux 36.5.0"),
        (THOR, "7.0, Jetson Linux 38.2.2"),
        ("# R39 (release), REVISION: 2.1, GCID: 1", "7.2, Jetson Linux 39.2.1"),
        ("# R41 (release), REVISION: 1.0, GCID: 1", "of an unknown number, Jetson Linux 41.1.0"),
    ],
)
def test_jetpack_of_jetson_linux(tmp_path: Path, release: str, found: str) -> None:
    (finding,) = find_jetpack(write(tmp_path, etc__nv_tegra_release=release))
    assert (finding.state, finding.found) == ("ok", found)


@pytest.mark.parametrize(
    ("release", "found", "remedy"),
    [
        (NANO, "4, Jetson Linux 32.7.1", "Nano and TX2 end with JetPack 4 (Python 3.6, TensorRT 8.2)"),
        (XAVIER, "5.1, Jetson Linux 35.3.1", "Xavier ends with JetPack 5 (Python 3.8, TensorRT 8.5)"),
        ("# R36 (release), REVISION: 3.0, GCID: 1", "6.0, Jetson Linux 36.3.0", "this one has TensorRT 8.6"),
        ("# R28 (release), REVISION: 2.1, GCID: 1", "of an unknown number, Jetson Linux 28.2.1", "on an Orin"),
    ],
)
def test_jetpack_that_is_not_served(tmp_path: Path, release: str, found: str, remedy: str) -> None:
    (finding,) = find_jetpack(write(tmp_path, etc__nv_tegra_release=release))
    assert (finding.state, finding.found) == ("broken", found)
    assert finding.remedy is not None
    assert "flash JetPack 6.1 or later" in finding.remedy
    assert finding.remedy.endswith(remedy)


def test_installed_package_names_jetpack(tmp_path: Path) -> None:
    write(
        tmp_path, etc__nv_tegra_release=AGX_ORIN, var__lib__dpkg__status=PACKAGES.format(state="install ok installed")
    )
    (finding,) = find_jetpack(tmp_path)
    assert finding.found == "6.2.1, Jetson Linux 36.4.0"


def test_package_that_was_removed_does_not(tmp_path: Path) -> None:
    write(
        tmp_path, var__lib__dpkg__status=PACKAGES.format(state="deinstall ok config-files").replace("36.4.4", "36.4.7")
    )
    (finding,) = find_jetpack(tmp_path)
    assert finding.found == "6.2.1, Jetson Linux 36.4.7"  # by nvidia-l4t-core, where /etc has no nv_tegra_release


def test_no_jetson_says_nothing(tmp_path: Path) -> None:
    assert find_jetpack(tmp_path) == find_power(tmp_path) == find_memory(tmp_path) == []


@pytest.mark.parametrize("status", ["pmode:0002", "pmode:0002 fmode:fan_mode_quiet"])
def test_power_mode_and_what_else_there_is(tmp_path: Path, status: str) -> None:
    write(tmp_path, var__lib__nvpmodel__status=status)
    assert [finding.found for finding in find_power(tmp_path)] == ["of an unknown name (nvpmodel 2)"]
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nvpmodel.conf").write_text(POWER_MODELS)
    (finding,) = find_power(tmp_path)
    assert finding.found == "MAXN_SUPER (nvpmodel 2); others by sudo nvpmodel -m: 0 15W, 1 25W"


@pytest.mark.parametrize("folder", ["17000000.gpu", "gpu-gpc-0"])
@pytest.mark.parametrize(
    ("lowest", "found"),
    [("306000000", "changes between 306 and 1020 MHz; sudo jetson_clocks"), ("1020000000", "held at 1020 MHz")],
)
def test_clock_of_the_gpu(tmp_path: Path, folder: str, lowest: str, found: str) -> None:
    below = tmp_path / "sys/class/devfreq" / folder
    below.mkdir(parents=True)
    (below / "min_freq").write_text(lowest + "\n")
    (below / "max_freq").write_text("1020000000\n")
    (finding,) = find_power(tmp_path)
    assert finding.found.startswith(found)


def test_memory_and_swap(tmp_path: Path) -> None:
    (finding,) = find_memory(write(tmp_path, proc__meminfo=MEMORY.format(free=5182340, swap=3995136)))
    assert (finding.state, finding.found) == ("ok", "5.3 of 8.2 GB free, swap 4.1 of 4.1 GB")


def test_memory_that_no_build_fits_into(tmp_path: Path) -> None:
    (finding,) = find_memory(write(tmp_path, proc__meminfo=MEMORY.format(free=982340, swap=0)))
    assert (finding.state, finding.found) == ("missing", "1.0 of 8.2 GB free, swap 0.0 of 4.1 GB")
    assert finding.remedy is not None
    assert "sudo init 3" in finding.remedy


@pytest.mark.heavy
def test_doctor_prints_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        tmp_path,
        etc__nv_tegra_release=XAVIER,
        var__lib__nvpmodel__status="pmode:0000",
        proc__meminfo=MEMORY.format(free=5182340, swap=3995136),
    )
    monkeypatch.setattr(doctor, "_ROOT", tmp_path)
    doctor.main([])
    said = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()[:4]]
    assert [(state, subject) for state, subject, _ in said] == [
        ("ok", "Jetson"),
        ("broken", "JetPack"),
        ("ok", "power"),
        ("ok", "memory"),
    ]
    assert "Xavier ends with JetPack 5" in said[1][2]
