"""What a Jetson's kernel says of its GPU; that NVML is read is tested with the benchmarks' conditions."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from runtime.gpu_state import GpuState, open_nvml, read_jetson_gpu

ORIN_NANO = {
    "sys/class/devfreq/17000000.gpu/cur_freq": "624750000\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "61000\n",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "53125\n",
    "sys/devices/platform/gpu.0/load": "990\n",
    "sys/class/hwmon/hwmon1/in1_label": "VDD_IN\n",
    "sys/class/hwmon/hwmon1/in1_input": "4992\n",
    "sys/class/hwmon/hwmon1/curr1_input": "1840\n",
    "sys/class/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV\n",
    "sys/class/hwmon/hwmon1/in2_input": "4992\n",
    "sys/class/hwmon/hwmon1/curr2_input": "684\n",
}


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_jetson_tells_clock_heat_power_and_load(tmp_path: Path) -> None:
    state = read_jetson_gpu(machine(tmp_path, ORIN_NANO))
    assert state == GpuState(mhz=624.75, temperature_c=53.125, power_w=pytest.approx(9.185, abs=1e-3), busy=0.99)


@pytest.mark.parametrize("name", list(ORIN_NANO))
def test_what_a_jetson_does_not_tell_is_left_out(name: str, tmp_path: Path) -> None:
    other = "no number\n" if name.endswith("_label") or name.endswith("type") else "-256000\n"
    state = read_jetson_gpu(machine(tmp_path, ORIN_NANO | {name: other}))
    for field in ("mhz", "temperature_c", "power_w", "busy"):
        assert getattr(state, field) is None or getattr(state, field) > 0


def test_other_machines_have_no_gpu_in_their_files(tmp_path: Path) -> None:
    files = {name: text for name, text in ORIN_NANO.items() if "devfreq" not in name}
    assert read_jetson_gpu(machine(tmp_path, files)) == GpuState()


def test_without_nvml_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert open_nvml() is None
