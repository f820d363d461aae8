"""What a device tells of its clocks, heat and power is read, and what it does not tell is named."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from benchmarks import conditions
from benchmarks.conditions import lines_of, parse_tegrastats, read_jetson, read_processor, watched, watching
from runtime import gpu_state
from stlm_edge.tensorrt import Gpu

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
# As JetPack 7 prints it on an AGX Thor: no load of the GPU, each heat with its highest, and the whole board's power.
AGX_THOR = (
    "08-08-2026 20:58:23 RAM 3429/125749MB (lfb 120x4MB) CPU [0%,5%,off]@2601 EMC_FREQ @4266 "
    "GR3D_FREQ @[1574,1574,1574] cpu@49.75C/49.75C tj@51.218C/51.218C gpu@51.218C/51.218C "
    "VDD_GPU 6330mW/6330mW/6330mW VIN_SYS_5V0 15486mW/7424mW/15486mW VIN 28906mW/14453mW/28906mW"
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
            "sys/class/thermal/thermal_zone0/temp": "48500\n",
            "sys/class/thermal/thermal_zone1/temp": "52250\n",
            "sys/class/thermal/thermal_zone2/temp": "-256000\n",
            "proc/loadavg": "0.25 0.40 0.74 3/105 18185\n",
        },
    )
    assert read_processor(root) == {"load": 0.25, "cpu_mhz": 1000, "temperature_c": 52.25}


def test_processor_of_a_virtual_machine_tells_less(tmp_path):
    root = fake_machine(tmp_path, {"proc/cpuinfo": "processor\t: 0\ncpu MHz\t\t: 2400.5\n\ncpu MHz\t\t: 2600.5\n"})
    assert read_processor(root) == {"cpu_mhz": 2500.5}
    assert read_processor(tmp_path / "nothing") == {}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (AGX_ORIN, {"gpu_busy_percent": 98, "gpu_mhz": 1300, "gpu_temperature_c": 46.093}),
        (
            ORIN_NANO,
            {"gpu_busy_percent": 99, "gpu_mhz": 624, "gpu_temperature_c": 53.125, "module_power_mw": 9163},
        ),
        (AGX_THOR, {"gpu_mhz": 1574, "gpu_temperature_c": 51.218, "board_power_mw": 28906}),
        (WITHOUT_ROOT, {"gpu_busy_percent": 1, "module_power_mw": 3913}),
        ("", {}),
    ],
)
def test_lines_of_tegrastats_are_understood(line, told):
    assert parse_tegrastats(line) == told


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.heavy
def test_running_tegrastats_is_read_and_ended(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program(tmp_path, "tegrastats", f'echo $$ > {tmp_path}/process\nwhile :; do echo "{ORIN_NANO}"; sleep 0.02; done')
    program(tmp_path, "nvpmodel", 'echo "NV Power Mode: MAXN"\necho 0')
    told = read_jetson()
    assert told["power_mode"] == "MAXN"
    assert told["gpu_mhz"] == 624
    process = int((tmp_path / "process").read_text())
    assert not Path(f"/proc/{process}").exists()


def test_machine_that_is_no_jetson_has_no_tegrastats(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_jetson() == {}


UUID = "GPU-9196782c-2fae-91c7-c24f-e9a05e4369a7"


def fake_nvml(
    monkeypatch: pytest.MonkeyPatch, *, reasons: int = 0, power: bool = True, gpu: str | None = UUID
) -> list[str]:
    """NVML's Python binding as far as it is asked; what a call returned, not what a GPU did."""
    calls: list[str] = []

    class NVMLError(Exception):
        pass

    def power_usage(_: object) -> int:
        if not power:
            raise NVMLError("Not Supported")
        return 251_300

    def handle_of(uuid: str) -> str:
        if uuid != UUID:
            raise NVMLError("Not Found")
        return uuid

    monkeypatch.setattr(gpu_state, "find_gpu", lambda: Gpu("NVIDIA RTX A6000", "sm86", 84, gpu))
    module = types.ModuleType("pynvml")
    vars(module).update(
        NVMLError=NVMLError,
        NVML_CLOCK_SM=1,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: calls.append("init"),
        nvmlShutdown=lambda: calls.append("shutdown"),
        nvmlDeviceGetHandleByUUID=handle_of,
        nvmlSystemGetDriverVersion=lambda: "580.65.06",
        nvmlDeviceGetClockInfo=lambda _, kind: {1: 1695}[kind],
        nvmlDeviceGetTemperature=lambda *_: 64,
        nvmlDeviceGetPowerUsage=power_usage,
        nvmlDeviceGetMemoryInfo=lambda _: types.SimpleNamespace(used=3 << 30, total=48 << 30),
        nvmlDeviceGetUtilizationRates=lambda _: types.SimpleNamespace(gpu=37),
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda _: reasons,
    )
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return calls


def test_gpu_is_read_by_nvml_as_far_as_it_tells(monkeypatch):
    calls = fake_nvml(monkeypatch, reasons=0x4 | 0x40 | 0x1)
    monkeypatch.setenv("PATH", "")
    with watching() as told:
        pass
    for moment in (told["before"], told["after"]):
        assert {name: moment[name] for name in moment if name.startswith(("gpu", "driver"))} == {
            "driver": "580.65.06",
            "gpu_mhz": 1695,
            "gpu_temperature_c": 64,
            "gpu_power_w": 251.3,
        }
    assert "SLOWED DOWN by its hardware's heat limit, power cap" in told["warnings"][-1]
    assert calls == ["init", "shutdown"]


def test_gpu_that_keeps_its_power_to_itself_is_read_all_the_same(monkeypatch):
    fake_nvml(monkeypatch, power=False)
    with watching() as told:
        assert told["before"]["gpu_mhz"] == 1695
        assert "gpu_power_w" not in told["before"]


@pytest.mark.parametrize("gpu", [None, "GPU-fa724978-a973-65f4-7a78-26d847638556"])
def test_another_gpu_is_never_read_instead_of_the_one_in_use(monkeypatch, gpu):
    fake_nvml(monkeypatch, gpu=gpu, reasons=0x4)
    monkeypatch.setenv("PATH", "")
    with watching() as told:
        assert [name for name in told["before"] if name.startswith(("gpu", "driver"))] == []
    assert "SLOWED DOWN" not in "".join(told["warnings"])


def test_machine_without_nvml_has_no_gpu_to_read(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with watching() as told:
        assert "driver" not in told["before"]
    assert told["after"]["load"] >= 0


def test_what_slows_a_gpu_down_for_a_while_is_seen(monkeypatch):
    monkeypatch.setattr(conditions, "INTERVAL_S", 0.001)
    looks = iter([set(), set(), {"power cap"}, *[set()] * 1_000_000])
    with watched(dict, lambda: next(looks)) as told:
        while not told["warnings"]:
            pass
    assert "power cap" in told["warnings"][0]


def test_busy_machine_is_warned_of(monkeypatch):
    monkeypatch.setattr(conditions.os, "cpu_count", lambda: 4)
    with watched(lambda: {"load": 2.0}, set) as quiet, watched(lambda: {"load": 2.1}, set) as busy:
        assert busy["after"] == {}
    assert quiet["warnings"] == []
    assert "BUSY: load 2.10 on 4 cores" in busy["warnings"][0]
    assert (busy["before"], busy["after"]) == ({"load": 2.1}, {"load": 2.1})


def test_conditions_are_told_in_lines():
    told = {"before": {"cpu_mhz": 2445.428}, "after": {"driver": "580.65.06"}, "warnings": ["A WARNING"]}
    assert lines_of(told) == ["before: cpu_mhz 2445", "after: driver 580.65.06"]
    assert lines_of({"before": {}, "after": {}, "warnings": []}) == []
