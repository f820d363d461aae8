"""Which layout a folder has, and what is in it."""

from __future__ import annotations

import os
from pathlib import Path

from stlm_edge.datasets.dagm import DAGM_SEED, is_dagm, load_dagm
from stlm_edge.datasets.listing import by_number, folders, found_folders, require_folder
from stlm_edge.datasets.mvtec import is_mvtec, load_mvtec
from stlm_edge.datasets.samples import GOOD, Category, Sample
from stlm_edge.datasets.visa import SPLIT, is_visa, is_visa_category, load_visa, visa_categories
from stlm_edge.errors import DataError
from stlm_edge.folders import SUFFIXES, is_file, is_folder, pictures_in
from stlm_edge.names import escaped

_FIGURES = ("evaluation", "retrain")
"""What the pictures are called that 'stlm evaluate' and 'stlm retrain' draw into a run's folder."""


def load_category(folder: Path, category: str | None, *, dagm_seed: int = DAGM_SEED) -> Category:
    """List the pictures of one part; none is opened.

    The layouts are those of MVTec AD (`mvtec`), VisA (`visa`) and DAGM (`dagm`), and a plain folder of good pictures.
    Hidden files and what systems leave behind are passed over, other files that are no pictures with a word.

    Args:
        folder: the data set's folder when `category` is given, otherwise the part's own folder.
        category: a folder below `folder`.
        dagm_seed: which good pictures of a class of DAGM are tested (paper, 4.1.1); other layouts have fixed splits.
    Raises:
        DataError: if a folder or a mask is missing, or there is no good picture to train on.
    """
    require_folder(folder)
    if category is not None and is_visa(folder):
        return load_visa(folder, category)
    root = folder
    if category is not None:
        root = folder / category
        if not is_folder(root):
            raise DataError(
                f"{folder} has no category {category!r}, {found_folders(folders(folder))}; give one that is there"
            )
    name = escaped(_absolute(root).name)
    if is_mvtec(root):
        return load_mvtec(root, name)
    if is_dagm(root):
        return load_dagm(root, name, seed=dagm_seed)
    if is_visa_category(root):
        return _load_visa_category(root)
    if is_visa(root):
        raise DataError(
            f"{root} is VisA's folder with the categories {', '.join(visa_categories(root))}; choose one of them"
        )
    if "test" in folders(root) and not pictures_in(root):
        raise DataError(
            f"{root} has test/ and no train/good/, expected good pictures to learn from as well; put some into "
            f"{root / 'train' / GOOD}"
        )
    good = pictures_in(root, tell_of_those_below=True)
    if is_file(root / "run.json") and (figures := [path.name for path in good if path.name.startswith(_FIGURES)]):
        raise DataError(
            f"{root} is the folder of a training, and {escaped(figures[0])} in it a figure, expected photographs; "
            f"give the folder of those ({root / 'data'} after 'stlm retrain')"
        )
    if not good:
        raise DataError(
            f"{root} has neither pictures ({SUFFIXES}) nor train/good/, nor Train/ and Test/ (DAGM), nor {SPLIT} "
            f"(VisA), {found_folders(folders(root))}; give a folder of good pictures, or a data set's folder and a "
            "category in it"
        )
    return Category(name, tuple(Sample(path, GOOD, None) for path in good), ())


def categories(folder: Path) -> list[str]:
    """The categories of a data set's folder, Class2 before Class10.

    Those of VisA stand in its split; those of MVTec AD and DAGM are the folders of such a layout; where there is
    neither, the folders that hold pictures.

    Raises:
        DataError: if there is none.
    """
    require_folder(folder)
    if is_visa(folder):
        return visa_categories(folder)
    names = sorted(folders(folder), key=by_number)
    found = [name for name in names if is_mvtec(folder / name) or is_dagm(folder / name)]
    if not found and not is_mvtec(folder) and not is_dagm(folder):
        found = [name for name in names if pictures_in(folder / name)]
    if not found:
        raise DataError(
            f"{folder} has no category: looked for {SPLIT} (VisA), folders with train/ (MVTec AD) or Train/ and Test/ "
            f"(DAGM), and folders of pictures, {found_folders(names)}; give the folder above the categories"
        )
    return found


def _load_visa_category(root: Path) -> Category:
    folder = _absolute(root).parent
    if not is_visa(folder):
        raise DataError(
            f"{root} looks like a category of VisA but {folder / SPLIT} does not exist; put the split there"
        )
    return load_visa(folder, _absolute(root).name)


def _absolute(folder: Path) -> Path:
    """With its own name, also if it was given as `.`; links keep theirs."""
    return Path(os.path.abspath(folder))  # noqa: PTH100  # Path.absolute keeps `..`
