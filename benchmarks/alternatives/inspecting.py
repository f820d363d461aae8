"""What is compared, once it is open: it looks at a frame and gives a map and a score.

One and the same code path judges the pictures and is timed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.turns import TOTAL
from stlm_edge.imaging import Image, Map, read_image
from stlm_edge.spec import Size


@dataclass(frozen=True)
class Facts:
    """What a table says of a method besides its figures; None where it has no such thing or that is not known.

    Attributes:
        name: as rows and measures have it.
        pretrained: on what the network that it starts from was trained, in words.
        input_size: (height, width).
        parameters: of its networks; what it remembers of the pictures is in `model_mb` alone.
        train_minutes: wall-clock time.
        model_mb: MB of 10⁶ bytes, on disk.
        note: what its figures must be read with.
    """

    name: str
    library: str
    backbone: str | None
    pretrained: str | None
    input_size: Size
    parameters: int | None = None
    train_minutes: float | None = None
    model_mb: float | None = None
    note: str = ""


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a method says of a frame.

    Attributes:
        anomaly_map: (h, w) of any size; higher is more anomalous, on a scale of the method's own.
        score: of the whole frame, likewise.
        stages_ms: `prepare`, `infer` and `total`, from uint8 pixels in memory to map and score there.
    """

    anomaly_map: Map
    score: float
    stages_ms: Mapping[str, float]


class Inspecting(Protocol):
    """An opened method."""

    @property
    def facts(self) -> Facts: ...

    def inspect(self, image: Image) -> Verdict:
        """Args: image: (H, W, 3) uint8, BGR, of any size."""
        ...


class Opener(Protocol):
    """What can be opened, here or in another process; picklable."""

    def open(self) -> AbstractContextManager[Inspecting]:
        """May raise `StlmError`."""
        ...


def stages(start_s: float, prepared_s: float, done_s: float) -> dict[str, float]:
    """Milliseconds of both stages and of them together."""
    return {
        "prepare": 1e3 * (prepared_s - start_s),
        "infer": 1e3 * (done_s - prepared_s),
        TOTAL: 1e3 * (done_s - start_s),
    }


class Timing:
    """An opened method as `benchmarks.turns` times it."""

    def __init__(self, method: Inspecting, pictures: Sequence[Image]) -> None:
        self._method = method
        self._pictures = pictures

    @property
    def facts(self) -> dict[str, Any]:
        return {}  # the rows have them from where the pictures were judged

    def run(self, index: int) -> Mapping[str, float]:
        return self._method.inspect(self._pictures[index % len(self._pictures)]).stages_ms


@contextmanager
def timing(opener: Opener, paths: Sequence[Path]) -> Iterator[Timing]:
    """Open something to be timed on the pictures at `paths`, which are read before."""
    pictures = [read_image(path) for path in paths]
    with opener.open() as method:
        yield Timing(method, pictures)
