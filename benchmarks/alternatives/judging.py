"""How good a method is on labelled pictures, at their own resolution, as `train evaluate` measures it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.alternatives.inspecting import Inspecting
from benchmarks.intervals import Judged
from stlm_edge.datasets import Sample, read_truth
from stlm_edge.imaging import read_image, resize_map


def judge(method: Inspecting, samples: Sequence[Sample]) -> Iterator[Judged]:
    """What a method says of each picture, in their order; a picture is a group of its own. Raises `ImageError`."""
    for sample in samples:
        image = read_image(sample.path)
        size = (image.shape[0], image.shape[1])
        verdict = method.inspect(image)
        yield Judged(
            kind=sample.label,
            group=str(sample.path),
            anomaly_map=resize_map(verdict.anomaly_map, size),
            mask=read_truth(sample, size=size),
            score=verdict.score,
        )
