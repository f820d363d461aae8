"""The paper's figure is brought to another device by data sheets only, and called an estimate."""

from __future__ import annotations

import pytest

from benchmarks.estimate import comparison, estimate_ms
from benchmarks.record import Device

PROCESSOR = Device("AMD EPYC", ("avx2",), 2)
H100 = Device("AMD EPYC", ("avx2",), 16, "NVIDIA H100 80GB HBM3", "sm90")
RTX3090 = Device("AMD EPYC", ("avx2",), 16, "NVIDIA GeForce RTX 3090", "sm86")
ORIN = Device("ARM", (), 8, "Orin", "sm87")


def test_memory_and_arithmetic_leave_a_range():
    assert estimate_ms(10.0, precision="fp32", device=H100) == pytest.approx((10 * 66.9 / 35.6, 10 * 3350 / 936))
    assert estimate_ms(10.0, precision="fp16", device=RTX3090) == (10.0, 10.0)


@pytest.mark.parametrize(("device", "precision"), [(PROCESSOR, "fp32"), (ORIN, "fp32"), (H100, "tf32")])
def test_nothing_is_scaled_by_unknown_peaks(device, precision):
    assert estimate_ms(10.0, precision=precision, device=device) is None


@pytest.mark.parametrize(
    ("device", "size", "on_gpu", "said"),
    [
        (RTX3090, (1024, 1024), True, "the same GPU and size as here"),
        (RTX3090, (256, 256), True, "another size, so the two cannot be compared"),
        (RTX3090, (1024, 1024), False, "AMD EPYC at 1024 x 1024, another device"),
        (PROCESSOR, None, False, "AMD EPYC at several sizes, another device"),
    ],
)
def test_paper_is_compared_on_its_own_gpu_and_size_only(device, size, on_gpu, said):
    sentence = comparison(device, input_size=size, on_gpu=on_gpu)
    assert sentence.startswith("the paper has 20 ms on an RTX 3090 at 1024 x 1024")
    assert said in sentence
