"""What every backend does alike: check the graph when it is opened, input and answer at each inference."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from runtime.closing import Closing
from stlm_edge.errors import EngineError
from stlm_edge.imaging import Input
from stlm_edge.spec import ModelSpec

Maps = NDArray[np.float32]
"""(N, h, w) float32, higher is more anomalous; (h, w) = spec.map_size."""
Scores = NDArray[np.float32]
"""(N,) float32, one image score per map."""


@dataclass(frozen=True)
class Port:
    """One input or output of a graph; a dimension that the file leaves open is -1."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {self.shape}"


class Backend(Closing):
    """An opened engine. Owns the inference library's session until `close`; use as a context manager.

    A subclass opens its session in `__init__`, calls `_check_ports` and fills in `_infer` and `_release`.
    """

    name: ClassVar[str]

    def __init__(self, path: Path, *, spec: ModelSpec) -> None:
        self._path = path
        self._spec = spec
        self._closed = False

    def infer(self, batch: Input) -> tuple[Maps, Scores]:
        """Run the network.

        Args:
            batch: (N, H, W, 3) uint8, BGR; 1 <= N <= spec.max_batch, (H, W) = spec.picture_size.
        Returns:
            Anomaly maps and scores; the caller owns both arrays.
        Raises:
            EngineError: if the engine is closed, the batch does not fit it or the answer is not finite.
        """
        if self._closed:
            raise EngineError(f"{self._path} has been closed; open it again to inspect more frames")
        most, expected = self._spec.max_batch, (*self._spec.picture_size, 3)
        if batch.shape[1:] != expected or not 1 <= batch.shape[0] <= most or batch.dtype != np.uint8:
            wanted = f"{'1' if most == 1 else f'1 to {most}'} x {expected}"
            raise EngineError(
                f"found a batch of shape {batch.shape} and type {batch.dtype}, {self._path} expects {wanted} uint8; "
                "prepare frames by stlm_edge.imaging.to_input"
            )
        maps, scores = self._infer(batch)
        # No threshold is ever exceeded by NaN: unchecked, an overflow inside the network would pass every defect.
        if not (np.isfinite(scores).all() and np.isfinite(maps).all()):
            raise EngineError(
                f"{self._path} answered with values that are not finite on {self.name}, expected a map and a score; "
                "verify the engine and export it again, in fp32 if it was not"
            )
        return maps, scores

    def close(self) -> None:
        """Release the session; harmless when called twice."""
        if not self._closed:
            self._closed = True
            self._release()

    @abstractmethod
    def _infer(self, batch: Input) -> tuple[Maps, Scores]:
        """The work of `infer`, on a checked batch; returns arrays of its own."""

    @abstractmethod
    def _release(self) -> None:
        """The work of `close`, called once."""

    def _check_ports(self, *, inputs: list[Port], outputs: list[Port]) -> None:
        expected = _expected_ports(self._spec)
        found = (_by_name(inputs), _by_name(outputs))
        if found != expected:
            raise EngineError(
                f"{self._path} has {_listed(found)}, its sidecar expects {_listed(expected)}; "
                "export the engine again: python -m export onnx CHECKPOINT"
            )

    def _failed(self, action: str, error: Exception) -> EngineError:
        """The one line for what the inference library could not do."""
        return EngineError(
            f"{self.name} cannot {action} {self._path} ({error}); try another --backend or export the engine again"
        )


Ports = tuple[list[Port], list[Port]]


def _expected_ports(spec: ModelSpec) -> Ports:
    batch = 1 if spec.max_batch == 1 else -1
    outputs = [Port("anomaly_map", "float32", (batch, *spec.map_size)), Port("score", "float32", (batch,))]
    if spec.full_map:
        outputs.append(Port("full_map", "float32", (batch, *spec.input_size)))
    return [Port("image", "uint8", (batch, *spec.picture_size, 3))], sorted(outputs, key=lambda port: port.name)


def _by_name(ports: list[Port]) -> list[Port]:
    return sorted(ports, key=lambda port: port.name)


def _listed(ports: Ports) -> str:
    inputs, outputs = (", ".join(map(str, side)) for side in ports)
    return f"the inputs {inputs} and the outputs {outputs}"
