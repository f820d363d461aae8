"""Tiny data sets in the layouts of VisA and DAGM."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from stlm_edge.imaging import write_image

SIZE = (12, 16)

MakeDagm = Callable[..., Path]


def picture(path: Path) -> None:
    write_image(path, np.full((*SIZE, 3), 90, np.uint8))


def mask(path: Path, value: int) -> None:
    values = np.zeros(SIZE, np.uint8)
    values[3:5, 4:8] = value
    write_image(path, values)


def write_visa(root: Path) -> Path:
    """Two categories: `candle` with 3 + 1 good and 2 defective pictures, `pcb10` with 1 and 1."""
    lines = ["object,split,label,image,mask"]
    for category, train, test_good, defective in (("pcb10", 1, 0, 1), ("candle", 3, 1, 2), ("pcb2", 1, 0, 0)):
        for index in range(train + test_good):
            name = f"{category}/Data/Images/Normal/{index:04d}.JPG"
            picture(root / name)
            lines.append(f"{category},{'train' if index < train else 'test'},normal,{name},")
        for index in range(defective):
            name = f"{category}/Data/Images/Anomaly/{index:03d}.JPG"
            truth = f"{category}/Data/Masks/Anomaly/{index:03d}.png"
            picture(root / name)
            mask(root / truth, index + 1)
            lines.append(f"{category},test,anomaly,{name},{truth}")
    (root / "split_csv").mkdir()
    (root / "split_csv" / "1cls.csv").write_text("\n".join(lines) + "\n")
    return root


def write_dagm(
    root: Path, *classes: str, good: tuple[int, int] = (40, 20), defective: tuple[int, int] = (3, 2)
) -> Path:
    """Classes with the given numbers of good and defective pictures in each half."""
    for name in classes:
        number = 0
        for half, count, damaged in zip(("Test", "Train"), good[::-1], defective[::-1], strict=True):
            (root / name / half / "Label").mkdir(parents=True)
            lines = ["1"]
            for index in range(count + damaged):
                number += 1
                picture(root / name / half / f"{number:04d}.PNG")
                truth = f"{number:04d}_label.PNG" if index >= count else "0"
                if index >= count:
                    mask(root / name / half / "Label" / truth, 255)
                flag = int(index >= count)
                lines.append(f"{number}\t{flag}\t{number:04d}.PNG\t{flag}\t{truth}")
            (root / name / half / "Label" / "Labels.txt").write_text("\n".join(lines))
    return root


@pytest.fixture
def visa(tmp_path: Path) -> Path:
    return write_visa(tmp_path / "VisA")


@pytest.fixture
def make_dagm(tmp_path: Path) -> MakeDagm:
    return partial(write_dagm, tmp_path / "DAGM")
