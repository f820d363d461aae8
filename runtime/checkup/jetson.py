"""What a Jetson says of itself in its files: JetPack, power mode, clocks, memory and swap."""

from __future__ import annotations

import re
from pathlib import Path

from runtime.checkup.finding import Finding
from runtime.gpu_state import JETSON_CLOCKS

JETPACKS = {
    "36.4.0": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4.7": "6.2.1",
    "36.5": "6.2.2",
    "38.2": "7.0",
    "38.4": "7.1",
    "39.2": "7.2",
}
"""Beginning of Jetson Linux's version → JetPack, as jetson_stats has them too; of those that are served."""

OLDEST_SERVED = (36, 4)
_UPGRADE = "stlm-edge needs Python 3.10 and TensorRT 10.3: flash JetPack 6.1 or later"
TOO_OLD = {
    32: ("4", f"{_UPGRADE} on an Orin; Nano and TX2 end with JetPack 4 (Python 3.6, TensorRT 8.2)"),
    34: ("5.0", f"{_UPGRADE} on an Orin; Xavier ends with JetPack 5 (Python 3.8, TensorRT 8.5)"),
    35: ("5.1", f"{_UPGRADE} on an Orin; Xavier ends with JetPack 5 (Python 3.8, TensorRT 8.5)"),
    36: ("6.0", f"{_UPGRADE}; this one has TensorRT 8.6"),
}
"""Jetson Linux's release before `OLDEST_SERVED` → JetPack, and what to do."""

_LEAST_MEMORY_GB = 2.0


def find_jetpack(root: Path) -> list[Finding]:
    """JetPack and Jetson Linux; nothing where no file tells.

    Args:
        root: the folder that has `etc` and `var`.
    """
    packages = _text(root / "var/lib/dpkg/status")
    linux = _jetson_linux(_text(root / "etc/nv_tegra_release")) or _installed(packages, "nvidia-l4t-core")
    numbers = [int(number) for number in re.findall(r"\d+", linux)[:2]]
    if len(numbers) < 2:
        return []
    old = TOO_OLD.get(numbers[0]) if tuple(numbers) < OLDEST_SERVED else None
    known = next((name for begin, name in JETPACKS.items() if f"{linux}.".startswith(f"{begin}.")), None)
    name = _installed(packages, "nvidia-jetpack") or (old[0] if old else known) or "of an unknown number"
    found = f"{name}, Jetson Linux {linux}"
    if tuple(numbers) < OLDEST_SERVED:
        return [Finding("JetPack", "broken", found, old[1] if old else f"{_UPGRADE} on an Orin")]
    return [Finding("JetPack", "ok", found)]


def find_power(root: Path) -> list[Finding]:
    """Which power mode `nvpmodel` has set, and whether `jetson_clocks` holds the GPU's clock.

    Args:
        root: the folder that has `etc`, `var` and `sys`.
    """
    findings = []
    mode = re.search(r"pmode:0*(\d+)", _text(root / "var/lib/nvpmodel/status"))
    if mode is not None:
        models = re.findall(
            r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)", _text(root / "etc/nvpmodel.conf"), re.MULTILINE
        )
        names = dict(models)
        found = f"{names.get(mode[1], 'of an unknown name')} (nvpmodel {mode[1]})"
        others = [f"{number} {name}" for number, name in models if number != mode[1]]
        if others:
            found += f"; others by sudo nvpmodel -m: {', '.join(others)}"
        findings.append(Finding("power mode", "ok", found))
    for folder in (folder for pattern in JETSON_CLOCKS for folder in root.glob(pattern)):
        lowest, highest = _mhz(folder / "min_freq"), _mhz(folder / "max_freq")
        if lowest is None or highest is None:
            continue
        if lowest == highest:
            findings.append(Finding("GPU clock", "ok", f"held at {highest} MHz (jetson_clocks)"))
        else:
            found = f"changes between {lowest} and {highest} MHz; sudo jetson_clocks holds it at the highest"
            findings.append(Finding("GPU clock", "ok", found))
    return findings


def find_memory(root: Path) -> list[Finding]:
    """Memory and swap that are free: a Jetson's GPU has the same memory, and a build of a plan takes gigabytes.

    Args:
        root: the folder that has `proc`.
    """
    kilobytes = {name: int(size) for name, size in re.findall(r"^(\w+): +(\d+) kB", _text(root / "proc/meminfo"), re.M)}
    if not {"MemTotal", "MemAvailable", "SwapTotal", "SwapFree"} <= kilobytes.keys():
        return []
    total, free, swap, swap_free = (
        kilobytes[name] * 1024 / 1e9 for name in ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree")
    )
    found = f"{free:.1f} of {total:.1f} GB free, swap {swap_free:.1f} of {swap:.1f} GB"
    if free + swap_free < _LEAST_MEMORY_GB:
        remedy = "building a plan needs more: end the desktop (sudo init 3) and other programs, add swap"
        return [Finding("memory", "missing", found, remedy)]
    return [Finding("memory", "ok", found)]


def _jetson_linux(text: str) -> str:
    """`36.4.3` of `# R36 (release), REVISION: 4.3, GCID: …`, `` of anything else."""
    found = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return "" if found is None else f"{found[1]}.{found[2].strip('.')}"


def _installed(packages: str, name: str) -> str:
    """The version of an installed package, without the build, as dpkg keeps it; `` if it is not installed."""
    for entry in packages.split("\n\n"):
        if f"{entry}\n".lstrip().startswith(f"Package: {name}\n") and "\nStatus: install ok installed\n" in entry:
            version = re.search(r"^Version: ([\d.]+)", entry, re.MULTILINE)
            return "" if version is None else version[1]
    return ""


def _mhz(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) // 1_000_000 if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
