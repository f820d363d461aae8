"""Trees of textures, the source of pseudo anomalies."""

from __future__ import annotations

from pathlib import Path

from stlm_edge.datasets.listing import require_folder
from stlm_edge.errors import DataError
from stlm_edge.folders import SUFFIXES, pictures_below


def texture_paths(folder: Path) -> list[Path]:
    """All pictures below `folder` at any depth, sorted; the anomaly source, such as DTD's `images` (paper, 4.1.1).

    Raises:
        DataError: if the folder is missing or holds no picture.
    """
    require_folder(folder)
    paths = pictures_below(folder)
    if not paths:
        raise DataError(f"{folder} has no pictures ({SUFFIXES}) at any depth; give another folder")
    return paths
