"""Which good pictures the ranges of activations are measured on, so that the same choice can be made again."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np

from export import CALIBRATION_IMAGES
from stlm_edge.datasets import GOOD, load_category, texture_paths
from stlm_edge.datasets.dagm import is_dagm
from stlm_edge.datasets.listing import require_folder
from stlm_edge.datasets.mvtec import is_mvtec, labelled_by_folder
from stlm_edge.datasets.visa import is_visa_category
from stlm_edge.errors import DataError, ImageError
from stlm_edge.files import sha256
from stlm_edge.sidecar import Calibration

logger = logging.getLogger(__name__)

_TRUTH = "ground_truth"


def choose_pictures(folder: Path, *, count: int = CALIBRATION_IMAGES, seed: int = 0) -> tuple[list[Path], Calibration]:
    """Choose good pictures at random, the same ones for the same folder and seed.

    Of a part in the layout of MVTec AD, VisA or DAGM the good pictures to train on are taken; of any other folder all
    pictures below it, without those that MVTec AD's layout calls defective and without masks.

    Args:
        folder: the part's own folder, or a folder tree of good pictures.
        count: how many; all of them where there are fewer.
    Returns:
        Their paths, sorted, and what the record of the engine says of them.
    Raises:
        DataError: if there is no good picture, or one cannot be read.
    """
    good = _good_pictures(folder)
    picked = np.sort(np.random.default_rng(seed).permutation(len(good))[:count])
    paths = [good[index] for index in picked]
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(sha256(path).encode())
        except OSError as error:
            raise ImageError(f"{path} cannot be read ({error.strerror or error}); check its permissions") from error
    return paths, Calibration(images=len(paths), seed=seed, sha256=digest.hexdigest())


def has_good_pictures(folder: Path) -> bool:
    """Whether it is a part in a known layout, which says which of its pictures are good ones to train on."""
    return is_mvtec(folder) or is_dagm(folder) or is_visa_category(folder)


def _good_pictures(folder: Path) -> list[Path]:
    require_folder(folder)
    if has_good_pictures(folder):
        return [sample.path for sample in load_category(folder, None).train]
    found = texture_paths(folder)
    pictures = [path for path in found if _TRUTH not in path.parts]
    labelled = zip(pictures, labelled_by_folder(pictures), strict=True)
    good = [path for path, sample in labelled if sample is None or sample.label == GOOD]
    defective = len(pictures) - len(good)
    if not good:
        raise DataError(
            f"{folder} has no good pictures, {defective} labelled defective and {len(found) - len(pictures)} masks; "
            "give a folder of good ones, such as train/good"
        )
    if defective:
        logger.warning(
            "DEFECTS IN THE CALIBRATION FOLDER: %d of %d pictures below %s are labelled defective and left out; "
            "give a folder of good ones, such as train/good",
            defective,
            len(pictures),
            folder,
        )
    return good
