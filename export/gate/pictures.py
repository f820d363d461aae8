"""Which pictures an engine is judged by, and reading them one after the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export import CALIBRATION_IMAGES, GATE_IMAGES
from export.precision.calibration import has_good_pictures
from stlm_edge.datasets import GOOD, Sample, load_category, read_truth, texture_paths
from stlm_edge.datasets.dagm import is_dagm
from stlm_edge.datasets.listing import require_folder
from stlm_edge.datasets.mvtec import is_mvtec, labelled_by_folder
from stlm_edge.datasets.visa import is_visa, is_visa_category
from stlm_edge.errors import DataError
from stlm_edge.imaging import Image, Mask, read_image
from stlm_edge.names import escaped
from stlm_edge.plate.part import DEFECT_KINDS, render_part
from stlm_edge.progress import counted
from stlm_edge.spec import Size

SEED = 0
"""Of the choice where not all pictures are taken: the same ones each time, so that two engines can be compared."""

SYNTHETIC = 8

_TRUTH = "ground_truth"


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture with what is true about it.

    Attributes:
        name: of its file, for people.
        image: (H, W, 3) uint8, BGR.
        label: `good`, which includes what nobody has labelled, or the kind of defect.
        mask: (H, W), 1 on defects; None for a defect whose place nobody has marked.
    """

    name: str
    image: Image
    label: str
    mask: Mask | None


@dataclass(frozen=True)
class Pictures:
    """What an export is measured and judged on.

    Attributes:
        data: the gate's pictures, with labels where their layout has some; None for drawn parts.
        category: a folder below `data`.
        images: of the gate, at most.
        calibration: a folder of good pictures that ranges are measured on; None takes those for training of `data`.
        calibration_images, seed: how many of them at most, and of their choice.
        worst: a contact sheet of the gate's worst cases is written here.
        reference: what the gate compares with; None for the source itself.
    """

    data: Path | None = None
    category: str | None = None
    images: int = GATE_IMAGES
    calibration: Path | None = None
    calibration_images: int = CALIBRATION_IMAGES
    seed: int = 0
    worst: Path | None = None
    reference: Path | None = None

    def require_usable(self) -> None:
        """Before minutes of work: raises `DataError` if there are no pictures where they were said to be.

        It is raised too if nobody can say which of their masks is whose.
        """
        for sample in () if self.data is None else find_samples(self.data, self.category):
            if sample.mask_fault is not None:
                raise DataError(sample.mask_fault)
        if self.calibration is not None:
            require_folder(self.calibration)

    def good(self) -> Path | None:
        """Where good pictures are that ranges can be measured on."""
        if self.calibration is not None or self.data is None:
            return self.calibration
        folder = self.data if self.category is None else self.data / self.category
        return folder if has_good_pictures(folder) else None


def find_samples(data: Path, category: str | None) -> tuple[Sample, ...]:
    """The pictures of a folder, with labels where its layout has some.

    Of a data set in the layout of MVTec AD, VisA or DAGM its test pictures are taken (those for training if there are
    none), otherwise all pictures below `data`. There MVTec AD's folders still tell the labels of what lies in `test`;
    what has no label counts as good.

    Args:
        category: a folder below `data`, as for training.
    Raises:
        DataError: if there is no picture.
    """
    require_folder(data)
    if category is not None or is_mvtec(data) or is_dagm(data) or is_visa(data) or is_visa_category(data):
        found = load_category(data, category)
        return found.test or found.train
    paths = [path for path in texture_paths(data) if _TRUTH not in path.relative_to(data).parts]
    labelled = zip(paths, labelled_by_folder(paths), strict=True)
    return tuple(sample or Sample(path, GOOD, None) for path, sample in labelled)


def choose(samples: Sequence[Sample], count: int | None) -> tuple[Sample, ...]:
    """At most `count` of them, by a seeded choice in which each label has its share and none is left out needlessly."""
    if count is None or count >= len(samples):
        return tuple(samples)
    groups: dict[str, list[int]] = defaultdict(list)
    for index in np.random.default_rng(SEED).permutation(len(samples)):
        groups[samples[index].label].append(int(index))
    # The i-th of n stands at i / n of its label: taken in this order, every label comes first once, then by its size.
    places = [
        (place / len(group), label != GOOD, label, index)
        for label, group in groups.items()
        for place, index in enumerate(group)
    ]
    return tuple(samples[index] for index in sorted(place[-1] for place in sorted(places)[:count]))


def read(samples: Sequence[Sample]) -> Iterator[Picture]:
    """Read pictures and masks one by one. Raises `ImageError`."""
    for sample in samples:
        image = read_image(sample.path)
        mask = read_truth(sample, size=(image.shape[0], image.shape[1]))
        yield Picture(escaped("/".join(sample.path.parts[-2:])), image, sample.label, mask)


def read_with_progress(samples: Sequence[Sample]) -> Iterator[Picture]:
    """The same with a bar on a terminal."""
    yield from counted(read(samples), total=len(samples))


def synthetic(size: Size = (512, 512)) -> Iterator[Picture]:
    """Good and defective parts of the demo, for where there is no data yet."""
    kinds = (None, *DEFECT_KINDS)
    for index in range(SYNTHETIC):
        kind = kinds[index % len(kinds)]
        part = render_part(np.random.default_rng(index), size=size, defect=kind)
        yield Picture(f"synthetic {index}", part.image, kind or GOOD, part.mask if kind else None)
