"""The paper's data sets (4.1.1): their categories, and how it is told that a run was on one of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable

logger = logging.getLogger(__name__)

TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
OBJECTS = (
    *("bottle", "cable", "capsule", "hazelnut", "metal_nut"),
    *("pill", "screw", "toothbrush", "transistor", "zipper"),
)
MVTEC = (*TEXTURES, *OBJECTS)
VISA = (
    *("candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2"),
    *("pcb1", "pcb2", "pcb3", "pcb4", "pipe_fryum"),
)
DAGM = tuple(f"Class{number}" for number in range(1, 11))

DATA_SETS = {"MVTec": MVTEC, "VisA": VISA, "DAGM": DAGM}
ALL_THREE = "all three"

SCOPES: dict[str, tuple[str, ...]] = {
    **{name: (name,) for categories in DATA_SETS.values() for name in categories},
    "textures": TEXTURES,
    "objects": OBJECTS,
    **DATA_SETS,
    ALL_THREE: (*MVTEC, *VISA, *DAGM),
}
"""What a row averages over, by name; a category's own name stands for itself."""

DEFECTIVE: dict[str, int] = {
    **dict(zip(TEXTURES, (89, 57, 92, 84, 60), strict=True)),
    **dict(zip(OBJECTS, (63, 92, 109, 70, 93, 141, 119, 30, 40, 119), strict=True)),
    **dict.fromkeys(VISA, 100),
    **{name: 150 if number < 6 else 300 for number, name in enumerate(DAGM)},
}
"""Defective test pictures of each category, as its owners publish it; a set that has others is not the paper's."""


def named_like(folder: str) -> str | None:
    """The data set that a folder's name speaks of, `mvtec_anomaly_detection` for instance; None if of none."""
    letters = "".join(filter(str.isalnum, folder)).casefold()
    return next((name for name in DATA_SETS if name.casefold() in letters), None)


def of_the_paper(folder: str | None, category: str) -> bool:
    """Whether a category is one of the paper's: by its own name, which others use too, and by its data set's."""
    name = None if folder is None else named_like(folder)
    return name is not None and category in DATA_SETS[name]


def warn_of_name(folder: str, categories: Iterable[str]) -> None:
    """Say so, before weeks of training, where categories are called as the paper's and their data set is not."""
    alike = {name: sorted(set(categories) & set(own)) for name, own in DATA_SETS.items()}
    for name, found in alike.items():
        if found and not of_the_paper(folder, found[0]):
            logger.warning(
                "%s has categories called as those of %s (%s) and is not called so: the report will have none of the "
                "paper's figures beside them; if it is %s, name the folder %s first",
                folder,
                name,
                ", ".join(found),
                name,
                name.casefold(),
            )
