"""What a processor reaches at best, measured with OpenVINO, which runs the engines too."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import openvino
from openvino import opset13

from stlm_edge.signal_stack import kept_signal_stack

_SIDE = 2048
"""Of the matrices that are multiplied: large enough for any kernel, small enough for tens of milliseconds."""
_CHANNELS, _CELLS = 256, 64
"""Of the convolution, 3 x 3 with as many channels out as in: a library's best kernels may be for products or for it."""
_ELEMENTS = 1 << 25
"""Of the tensor that is read and written: 128 MiB in float32, more than caches hold."""
_RUNS = 3
"""Of each in a turn; the fastest counts, since a peak is what can be reached."""


class Peaks:
    """Attributes: all_gflop_s, all_gb_s: of each turn."""

    def __init__(self, *, threads: int) -> None:
        self.all_gflop_s: list[float] = []
        self.all_gb_s: list[float] = []
        rng = np.random.default_rng(0)
        matrix = rng.standard_normal((_SIDE, _SIDE), dtype=np.float32)
        left = opset13.parameter([_SIDE, _SIDE], np.float32)
        self._multiply = _runner(opset13.matmul(left, opset13.constant(matrix), False, True), left, threads)
        image = opset13.parameter([1, _CHANNELS, _CELLS, _CELLS], np.float32)
        kernels = opset13.constant(rng.standard_normal((_CHANNELS, _CHANNELS, 3, 3), dtype=np.float32))
        convolved = opset13.convolution(image, kernels, [1, 1], [1, 1], [1, 1], [1, 1])
        self._convolve = _runner(convolved, image, threads)
        tensor = opset13.parameter([_ELEMENTS // _SIDE, _SIDE], np.float32)
        self._add = _runner(opset13.add(tensor, opset13.constant(np.float32(1))), tensor, threads)

    def take_turn(self) -> None:
        """Measure both once more."""
        product = 2 * _SIDE**3 / _fastest_s(self._multiply)
        convolution = 2 * 9 * (_CHANNELS * _CELLS) ** 2 / _fastest_s(self._convolve)
        self.all_gflop_s.append(max(product, convolution) / 1e9)
        self.all_gb_s.append(2 * 4 * _ELEMENTS / _fastest_s(self._add) / 1e9)

    @property
    def gflop_s(self) -> float:
        """In float32, of a product or a convolution, whichever is faster; the median over the turns."""
        return median(self.all_gflop_s)

    @property
    def gb_s(self) -> float:
        """Read and written together, in 10⁹ bytes a second."""
        return median(self.all_gb_s)


def _runner(result: Any, parameter: Any, threads: int) -> Callable[[], Any]:
    model = openvino.Model([result], [parameter], "peak")
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    with kept_signal_stack():
        request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()

    def run() -> None:
        request.start_async()  # unlike `infer`, which copies the result
        request.wait()

    run()
    return run


def _fastest_s(work: Callable[[], Any]) -> float:
    times = []
    for _ in range(_RUNS):
        start_s = time.perf_counter()
        work()
        times.append(time.perf_counter() - start_s)
    return min(times)
