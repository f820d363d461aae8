"""How good a model is on labelled pictures, at their own resolution, with and without its feature aggregation."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stlm_edge.datasets import GOOD, Sample, read_truth
from stlm_edge.errors import DataError
from stlm_edge.imaging import Image, Input, Map, Mask, read_image, resize_map, to_input
from stlm_edge.inspection import Answer
from stlm_edge.memory import ran_out
from stlm_edge.metrics import ALL, QualityMeter, best_f1
from stlm_edge.network.comparison import tlm_map
from stlm_edge.network.inference import InferencePath, prepare
from stlm_edge.peaks import peak_in_mask
from stlm_edge.seen import SeenPictures, digest_of
from stlm_edge.spec import ModelSpec, Size
from train.evaluation import Curves, DefectVerdicts, Evaluation, Measured, Results, Scored, Scores
from train.intervals import intervals

logger = logging.getLogger(__name__)

READERS = 4
CPU_BATCH, GPU_BATCH = 2, 16
"""Pictures in one pass; on a CPU more of them gain little and take memory."""

T = TypeVar("T")


def evaluate(
    inspector: InferencePath,
    samples: Sequence[Sample],
    *,
    parts: Sequence[int] | None = None,
    metric_size: Size | None = None,
) -> Results:
    """Inspect labelled pictures and measure; see `QualityMeter` for what is kept of them.

    Figures over pixels are undefined for kinds of defects that are not all marked, and then for all of them together;
    `check_masks` says so beforehand.

    Args:
        parts: a number for each sample, which those of one part share, for intervals; None for none.
        metric_size: (height, width) that maps and masks are brought to for the figures over pixels, as the authors'
            code does with 1024 x 1024; None: each picture's own.
    Raises:
        DataError: if there are none, or a mask cannot be used.
        SpecError: if the model has no threshold.
    """
    if not samples:
        raise DataError("found no test pictures, expected test/good and test/<defect> beside train/good")
    threshold = inspector.spec.require_threshold()
    order = sorted(range(len(samples)), key=lambda index: samples[index].label)
    seen = SeenPictures(inspector.spec)
    met = _meet(inspector, [samples[index] for index in order], metric_size=metric_size, seen=seen)
    seen.warn("the network")
    meter, pictures = met.meter, met.pictures
    measured, curves = _measure(meter, side=0, at_half=True)
    has_streams = all(picture.tlm_score is not None for picture in pictures)
    tlm_only, tlm_curves = _measure(meter, side=1, at_half=False) if has_streams else (None, None)
    labels = np.array([picture.sample.label != GOOD for picture in pictures])
    scores = np.array([picture.score for picture in pictures])
    anomalous = scores >= threshold.value
    by_kind: dict[str, list[Scored]] = {kind: [] for kind in (*measured.kinds, ALL)}
    for picture in pictures:
        for kind in (picture.sample.label, ALL) if picture.sample.label != GOOD else ():
            by_kind[kind].append(picture)
    evaluation = Evaluation(
        category=inspector.spec.category,
        overall=measured.overall,
        kinds=measured.kinds,
        tlm_only=tlm_only,
        threshold=threshold.value,
        threshold_method=threshold.method,
        f1_optimal_threshold=math.nan if labels.all() else best_f1(scores, labels).threshold,
        good=int(np.count_nonzero(~labels)),
        defective=int(np.count_nonzero(labels)),
        missed=int(np.count_nonzero(labels & ~anomalous)),
        false_alarms=int(np.count_nonzero(~labels & anomalous)),
        intervals=None
        if parts is None
        else intervals(
            meter,
            pictures,
            [str(parts[index]) for index in order],
            threshold=threshold.value,
            overall=measured.overall,
        ),
        verdicts={kind: DefectVerdicts.of(own, threshold=threshold.value) for kind, own in by_kind.items()},
        weights_sha256=inspector.spec.weights_sha256,
        metric_size=metric_size,
    )
    tlm_curve = None if tlm_curves is None else tlm_curves[ALL]
    return Results(evaluation, tuple(pictures), curves, tlm_curve, pictures_sha256=met.sha256)


def overall_scores(
    inspector: InferencePath, samples: Sequence[Sample], *, metric_size: Size | None
) -> tuple[Scores, str]:
    """What `evaluate` says of all pictures together, of a network without a threshold too.

    Returns:
        The figures, and what `LabelledDigest` has of the pictures that they are of.
    Raises:
        ImageError: if a picture or mask cannot be used.
    """
    met = _meet(inspector, samples, metric_size=metric_size, seen=None)
    return Scores.of(met.meter.curves(0), at_half=True), met.sha256


class LabelledDigest:
    """What tells labelled pictures from others, whatever their names, folder and order."""

    def __init__(self) -> None:
        self._told: list[str] = []

    def add(self, label: str, digest: str, mask: Mask | None) -> None:
        """Args: digest: of the picture's pixels, see `stlm_edge.seen`."""
        marked = "" if mask is None else hashlib.sha256(np.packbits(mask > 0).tobytes()).hexdigest()
        self._told.append(f"{label}\0{digest}\0{marked}\n")

    def sha256(self) -> str:
        return hashlib.sha256("".join(sorted(self._told)).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class _Met:
    """Pictures that a network has answered; `sha256` as `LabelledDigest` has it."""

    meter: QualityMeter
    pictures: list[Scored]
    sha256: str


def _meet(
    inspector: InferencePath, samples: Sequence[Sample], *, metric_size: Size | None, seen: SeenPictures | None
) -> _Met:
    """Inspect pictures in their order; the meter has the map as deployed on side 0, and the TLM's on side 1."""
    meter = QualityMeter(sides=2)
    pictures: list[Scored] = []
    digest = LabelledDigest()
    for result in inspect(inspector, samples):
        if seen is not None and result.sample.label == GOOD:
            seen.add(result.digest, name=str(result.sample.path))
        size, mask = result.size, result.mask
        if metric_size is not None:
            size, mask = metric_size, None if mask is None else resize_mask(mask, metric_size)
        meter.add(result.answer, result.tlm_answer, label=result.sample.label, size=size, mask=mask)
        pictures.append(_scored(result, input_size=inspector.spec.input_size))
        digest.add(result.sample.label, result.digest, result.mask)
    return _Met(meter, pictures, digest.sha256())


def resize_mask(mask: Mask, size: Size) -> Mask:
    """Bring a mask to `size` (height, width) as the authors' code does: bilinear, anti-aliased, 1 from 0.5 on."""
    shares = torch.from_numpy((mask > 0).astype(np.float32))[None, None]
    shrunk = F.interpolate(shares, size=size, mode="bilinear", align_corners=False, antialias=True)
    return np.asarray((shrunk[0, 0] >= 0.5).numpy(), np.uint8)


@dataclass(frozen=True)
class Inspected:
    """One picture, what is true about it and what the model says, with and without feature aggregation.

    Attributes:
        size: (height, width) of the picture.
        digest: of its pixels, see `stlm_edge.seen`.
        mask: of that size; None for a defect that nobody has marked.
        answer: map at the network's input size, and score.
        tlm_answer: the same without feature aggregation, on another scale; None of a network without two streams.
    """

    sample: Sample
    size: Size
    digest: str
    mask: Mask | None
    answer: Answer
    tlm_answer: Answer | None

    @property
    def anomaly_map(self) -> Map:
        """In the picture's own pixels."""
        return resize_map(self.answer.anomaly_map, self.size)

    @property
    def tlm_map(self) -> Map | None:
        """In the picture's own pixels."""
        return None if self.tlm_answer is None else resize_map(self.tlm_answer.anomaly_map, self.size)


@torch.no_grad()
def inspect(inspector: InferencePath, samples: Sequence[Sample]) -> Iterator[Inspected]:
    """Run the whole inference path on pictures of any size, in their order. Raises `ImageError`."""
    device = _device(inspector)
    inspector.eval()
    passes = _Passes()
    with ThreadPoolExecutor(READERS) as readers:
        chunks = (
            readers.map(lambda sample: _read(sample, inspector.spec), chunk)
            for chunk in _chunks(samples, _batch_size(device))
        )
        for chunk in _one_ahead(chunks):
            batch = list(chunk)
            pixels = torch.from_numpy(np.concatenate([picture.pixels for picture in batch])).to(device)
            answers = passes(partial(both_maps, inspector), pixels)
            maps, scores, *tlm = (answer.numpy() for answer in answers)
            for index, picture in enumerate(batch):
                yield Inspected(
                    sample=picture.sample,
                    size=picture.size,
                    digest=picture.digest,
                    mask=picture.mask,
                    # Copies, since a view of one map would keep the whole batch's.
                    answer=Answer(maps[index].copy(), float(scores[index])),
                    tlm_answer=Answer(tlm[0][index].copy(), float(tlm[1][index])) if tlm else None,
                )


def both_maps(inspector: InferencePath, images: Tensor) -> tuple[Tensor, ...]:
    """What `inspector(images)` answers and the same without feature aggregation, from one pass of the streams.

    Returns:
        anomaly_map (N, H, W), score (N,), and of a network with two streams both again of the map without feature
        aggregation.
    """
    coarse, features = inspector.network.compared(prepare(images, inspector.spec))
    tlm = () if features is None else inspector.finish(tlm_map(features))
    return *inspector.finish(coarse), *tlm


@torch.no_grad()
def score_images(inspector: InferencePath, images: Iterable[Image]) -> list[float]:
    """Image scores of pictures that have the network's input size already."""
    device = _device(inspector)
    inspector.eval()
    passes = _Passes()
    scores: list[float] = []
    for chunk in _chunks(images, _batch_size(device)):
        scores += passes(inspector, torch.from_numpy(np.stack(chunk)).to(device))[1].tolist()
    return scores


def _scored(result: Inspected, *, input_size: Size) -> Scored:
    return Scored(
        sample=result.sample,
        score=result.answer.score,
        tlm_score=None if result.tlm_answer is None else result.tlm_answer.score,
        peak_in_mask=peak_in_mask(result.answer.anomaly_map, result.mask, input_size=input_size),
    )


def _measure(meter: QualityMeter, *, side: int, at_half: bool) -> tuple[Measured, dict[str, Curves]]:
    scores: dict[str, Scores] = {}
    drawn: dict[str, Curves] = {}
    for kind, curves in meter.by_kind(side):
        scores[kind], drawn[kind] = Scores.of(curves, at_half=at_half), Curves.of(curves)
    overall = scores.pop(ALL)
    return Measured(overall, scores), drawn


@dataclass(frozen=True)
class _Picture:
    sample: Sample
    pixels: Input
    size: Size
    digest: str
    mask: Mask | None


def _read(sample: Sample, spec: ModelSpec) -> _Picture:
    image = read_image(sample.path)
    size = (image.shape[0], image.shape[1])
    return _Picture(sample, to_input(image, spec=spec), size, digest_of(image), read_truth(sample, size=size))


def _device(inspector: InferencePath) -> torch.device:
    return next(inspector.parameters()).device


def _batch_size(device: torch.device) -> int:
    return CPU_BATCH if device.type == "cpu" else GPU_BATCH


class _Passes:
    """Runs batches through a network, as many pictures of one at once as memory holds: half as many when it runs out.

    So a model that could be trained can be measured, and its threshold chosen, on the same machine.
    """

    def __init__(self) -> None:
        self._most: int | None = None

    def __call__(self, network: Callable[[Tensor], tuple[Tensor, ...]], pixels: Tensor) -> tuple[Tensor, ...]:
        """What `network` makes of (N, H, W, 3), on the CPU."""
        parts: list[list[Tensor]] = []
        done = 0
        while done < len(pixels):
            taken = min(self._most or len(pixels), len(pixels) - done)
            try:
                parts.append([answer.cpu() for answer in network(pixels[done : done + taken])])
                done += taken
            except Exception as error:
                if taken == 1 or not ran_out(error):
                    raise
                self._most = taken // 2
                logger.info("memory ran out with %d pictures at once; going on with %d", taken, self._most)
        return tuple(torch.cat(answers) for answers in zip(*parts, strict=True))


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, the next one always begun: while one batch is computed the next one is read."""
    current = next(items, None)
    while current is not None:
        following = next(items, None)
        yield current
        current = following
