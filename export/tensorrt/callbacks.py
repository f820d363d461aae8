"""What TensorRT calls during a build: the monitor, which also is the way to stop it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any


@dataclass
class _Phase:
    name: str
    steps: int
    done: int = 0


class BuildProgress:
    """Phases within phases as one fraction of the whole; written by the build's threads, read by another one.

    Attributes:
        fraction: 0 … 1, never falling: each phase counts as one step of the phase around it.
        phase: the innermost phase, empty before the first.
        cancelled: whether the build has been asked to stop.
    """

    def __init__(self) -> None:
        self.fraction = 0.0
        self.phase = ""
        self.cancelled = False
        self._open: list[_Phase] = []
        self._lock = threading.Lock()

    def cancel(self) -> None:
        """Let the build end at its next step."""
        self.cancelled = True

    def start(self, name: str, steps: int) -> None:
        with self._lock:
            self._open.append(_Phase(name, max(steps, 1)))
            self.phase = name

    def step(self, name: str, step: int) -> bool:
        """Step number `step` of a phase is done; returns whether the build is to go on."""
        with self._lock:
            for phase in self._open:
                if phase.name == name:
                    phase.done = min(step + 1, phase.steps)
            self._update()
        return not self.cancelled

    def finish(self, name: str) -> None:
        with self._lock:
            for phase in reversed(self._open):
                if phase.name == name:
                    self._open.remove(phase)
                    break
            if not self._open:
                self.fraction = 1.0

    def _update(self) -> None:
        fraction, share = 0.0, 1.0
        for phase in self._open:
            fraction += share * phase.done / phase.steps
            share /= phase.steps
        self.fraction = max(self.fraction, min(fraction, 1.0))


def make_monitor(trt: Any, progress: BuildProgress) -> Any:
    """An `IProgressMonitor` that hands on what it is told."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # a class of whichever module there is
        def phase_start(self, phase: str, _parent: str | None, steps: int) -> None:
            progress.start(phase, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            return progress.step(phase, step)

        def phase_finish(self, phase: str) -> None:
            progress.finish(phase)

    return Monitor()
