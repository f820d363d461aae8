"""What a device tells of its clocks, heat and power is read, and what it does not tell is named."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import conditions
from benchmarks.conditions import Moment, Watch, lines_of, read_processor, watching
from benchmarks.jetson import parse_tegrastats, power_mode, tegrastats
from benchmarks.nvml import nvml

# As JetPack 5 prints them on an AGX Orin, JetPack 6 on an Orin Nano, and the same without root.
AGX_ORIN = (
    "03-11-2026 09:14:07 RAM 3611/30588MB (lfb 5781x4MB) SWAP 0/15294MB (cached 0MB) CPU [12%@2201,3%@2201,0%@729,"
    "0%@729,off,off,off,off] EMC_FREQ 7%@3199 GR3D_FREQ 98%@[1300,1298] VIC_FREQ 0%@115 APE 174 CV0@-256C "
    "CPU@51.406C Tboard@38C SOC2@47.281C Tdiode@40.25C SOC0@47.5C CV1@-256C GPU@46.093C tj@51.406C SOC1@46.75C "
    "CV2@-256C VDD_GPU_SOC 11968mW/8377mW VDD_CPU_CV 1196mW/1096mW VIN_SYS_5V0 4238mW/3928mW"
)
ORIN_NANO = (
    "03-11-2026 09:20:55 RAM 2611/7620MB (lfb 12x4MB) SWAP 3/3810MB (cached 0MB) CPU [31%@1510,28%@1510,30%@1510,"
    "27%@1510,25%@1510,29%@1510] EMC_FREQ 21%@2133 GR3D_FREQ 99%@[624] NVDEC off NVJPG off APE 200 cpu@52.593C "
    "soc2@51.25C soc0@50.562C gpu@53.125C tj@53.125C soc1@51.718C VDD_IN 9163mW/7210mW VDD_CPU_GPU_CV 3410mW/2310mW "
    "VDD_SOC 2084mW/1877mW"
)
WITHOUT_ROOT = "RAM 3162/7620MB (lfb 4x2MB) CPU [1%@729,off] GR3D_FREQ 1% gpu@-256C VDD_IN 3913mW/3922mW"


def fake_machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_processor_of_a_board_is_read(tmp_path):
    root = fake_machine(
        tmp_path,
        {
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "500000\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
            "sys/class/thermal/thermal_zone0/temp": "48500\n",
            "sys/class/thermal/thermal_zone1/temp": "52250\n",
            "sys/class/thermal/thermal_zone2/temp": "-256000\n",
            "proc/loadavg": "0.25 0.40 0.74 3/105 18185\n",
        },
    )
    assert read_processor(root) == {"cpu_mhz": 1000, "governor": "schedutil", "temperature_c": 52.25, "load": 0.25}


def test_processor_of_a_virtual_machine_tells_less(tmp_path):
    root = fake_machine(tmp_path, {"proc/cpuinfo": "processor\t: 0\ncpu MHz\t\t: 2400.5\n\ncpu MHz\t\t: 2600.5\n"})
    assert read_processor(root) == {"cpu_mhz": 2500.5}
    assert read_processor(tmp_path / "nothing") == {}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            AGX_ORIN,
            {
                "gpu_busy_percent": 98,
                "gpu_mhz": 1300,
                "gpu_memory_mhz": 3199,
                "gpu_temperature_c": 46.093,
                "cpu_mhz": 1465,
            },
        ),
        (
            ORIN_NANO,
            {
                "gpu_busy_percent": 99,
                "gpu_mhz": 624,
                "gpu_memory_mhz": 2133,
                "gpu_temperature_c": 53.125,
                "cpu_mhz": 1510,
                "gpu_power_w": 9.163,
            },
        ),
        (WITHOUT_ROOT, {"gpu_busy_percent": 1, "cpu_mhz": 729, "gpu_power_w": 3.913}),
        ("", {}),
    ],
)
def test_lines_of_tegrastats_are_understood(line, told):
    assert parse_tegrastats(line) == told
    Moment(**told)


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_running_tegrastats_is_read_and_ended(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program(tmp_path, "tegrastats", f'echo $$ > {tmp_path}/process\nwhile :; do echo "{ORIN_NANO}"; sleep 0.02; done')
    program(tmp_path, "nvpmodel", 'echo "NV Power Mode: MAXN"\necho 0')
    with tegrastats(interval_ms=20) as read:
        assert read is not None
        told = read()
    assert told["power_mode"] == "MAXN"
    assert told["gpu_mhz"] == 624
    process = int((tmp_path / "process").read_text())
    assert not Path(f"/proc/{process}").exists()


def test_machine_that_is_no_jetson_has_no_tegrastats(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert power_mode() is None
    with tegrastats() as read:
        assert read is None


def fake_nvml(monkeypatch: pytest.MonkeyPatch, *, reasons: int = 0, power: bool = True) -> list[str]:
    """NVML's Python binding as far as it is asked; what a call returned, not what a GPU did."""
    calls: list[str] = []

    class NVMLError(Exception):
        pass

    def power_usage(_: object) -> int:
        if not power:
            raise NVMLError("Not Supported")
        return 251_300

    module = types.ModuleType("pynvml")
    vars(module).update(
        NVMLError=NVMLError,
        NVML_CLOCK_SM=1,
        NVML_CLOCK_MEM=2,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: calls.append("init"),
        nvmlShutdown=lambda: calls.append("shutdown"),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda _: b"NVIDIA GeForce RTX 3090",
        nvmlSystemGetDriverVersion=lambda: "580.65.06",
        nvmlDeviceGetClockInfo=lambda _, kind: {1: 1695, 2: 9751}[kind],
        nvmlDeviceGetTemperature=lambda *_: 64,
        nvmlDeviceGetPowerUsage=power_usage,
        nvmlDeviceGetUtilizationRates=lambda _: SimpleNamespace(gpu=97),
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda _: reasons,
    )
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return calls


def test_gpu_is_read_by_nvml_as_far_as_it_tells(monkeypatch):
    calls = fake_nvml(monkeypatch, reasons=0x4 | 0x40 | 0x1)
    with nvml() as read:
        assert read is not None
        assert read() == {
            "gpu": "NVIDIA GeForce RTX 3090",
            "driver": "580.65.06",
            "gpu_mhz": 1695,
            "gpu_memory_mhz": 9751,
            "gpu_temperature_c": 64,
            "gpu_power_w": 251.3,
            "gpu_busy_percent": 97,
            "slowed_by": ("power cap", "hardware's heat limit"),
        }
    assert calls == ["init", "shutdown"]


def test_gpu_that_keeps_its_power_to_itself_is_named(monkeypatch):
    fake_nvml(monkeypatch, power=False)
    with watching() as watch:
        assert watch.before.gpu_mhz == 1695
        assert "its power" in watch.absent
        assert "the GPU's clock" not in watch.absent


def test_machine_without_nvml_has_no_gpu_to_read(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with nvml() as read:
        assert read is None


def test_watch_keeps_before_during_and_after(monkeypatch):
    monkeypatch.setattr(conditions, "INTERVAL_S", 0.001)
    count = iter(range(1_000_000))
    watch = Watch(lambda: Moment(cpu_mhz=float(next(count)), load=0.0))
    while len(watch.during) < 3:
        pass
    watch.close()
    told = watch.to_dict()
    assert told["before"] == {"cpu_mhz": 0, "load": 0}
    assert told["during"]["cpu_mhz"]["low"] == 1
    assert told["samples"] == len(watch.during)
    assert told["after"]["cpu_mhz"] == told["during"]["cpu_mhz"]["high"] + 1
    assert told["absent"] == ["its governor", "temperatures"]
    assert told["warnings"] == []


def test_busy_machine_and_slowed_gpu_are_warned_of(monkeypatch):
    monkeypatch.setattr(conditions.os, "cpu_count", lambda: 4)
    quiet, busy = Watch(lambda: Moment(load=2.0)), Watch(lambda: Moment(load=2.1, slowed_by=("power cap",)))
    for watch in (quiet, busy):
        watch.close()
    assert quiet.to_dict()["warnings"] == []
    first, second = busy.to_dict()["warnings"]
    assert "BUSY: load 2.10 on 4 cores" in first
    assert "SLOWED DOWN by its power cap" in second


def test_conditions_are_told_in_lines():
    told = {
        "before": {"cpu_mhz": 2445.428, "slowed_by": ()},
        "after": {"driver": "580.65.06", "slowed_by": ("power cap", "power brake")},
        "absent": ["temperatures"],
        "warnings": ["A WARNING"],
    }
    assert lines_of(told) == [
        "before: cpu_mhz 2445, slowed_by nothing",
        "after: driver 580.65.06, slowed_by power cap and power brake",
        "this machine does not tell temperatures",
        "A WARNING",
    ]
    assert lines_of({"before": {}, "after": None, "absent": [], "warnings": []}) == []


def test_this_machine_is_watched():
    with watching() as watch:
        pass
    assert watch.after is not None
    assert watch.to_dict()["before"]["load"] >= 0
