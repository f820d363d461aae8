"""Whether INT8 is worth it, told from two build logs before anything has run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BuildCost:
    """What a compiler's log says of an engine.

    Attributes:
        bytes_moved: by all kernels, their inputs, constants and outputs once each.
        floor_ms: per kernel the slower of arithmetic and memory, summed, on one GPU; None where it is not known.
    """

    kernels: int
    bytes_moved: int
    floor_ms: float | None = None


@dataclass(frozen=True)
class Gain:
    """Whether INT8 is expected to be faster than FP16, and one sentence that says so with figures."""

    expected: bool
    sentence: str


def expected_gain(fp16: BuildCost, int8: BuildCost) -> Gain:
    """Compare two engines of one network, built for the same GPU, by their floors, or by bytes where one is missing.

    The network waits for memory more than for arithmetic, so an engine that moves more bytes is slower, whatever its
    arithmetic is done in. A gain below 2 % is taken for none.
    """
    ratio = int8.bytes_moved / fp16.bytes_moved
    figures = (
        f"it moves {int8.bytes_moved / 1e6:.0f} MB in {int8.kernels} kernels, FP16 {fp16.bytes_moved / 1e6:.0f} MB in "
        f"{fp16.kernels}"
    )
    if fp16.floor_ms is not None and int8.floor_ms is not None:
        ratio = int8.floor_ms / fp16.floor_ms
        figures += f", and cannot take less than {int8.floor_ms:.3g} ms against {fp16.floor_ms:.3g}"
    expected = ratio < 0.98
    verdict = "is expected to be faster" if expected else "is not expected to be faster"
    return Gain(expected, f"INT8 {verdict} than FP16: {figures} (computed, not measured)")
