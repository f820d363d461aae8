"""The paper's figures are entered as it prints them: its own averages come out of them."""

from __future__ import annotations

import pytest

from train.paper.figures import METHODS, TABLES

PRINTED = {
    "PatchCore": (95.97, 97.87, 91.30, 49.30),
    "RD++": (97.95, 98.12, 94.06, 55.30),
    "DeSTSeg": (96.13, 96.49, 91.00, 57.85),
    "SimpleNet": (97.22, 97.68, 90.00, 46.40),
    "FastFlow": (86.70, 91.60, 75.10, 29.87),
    "DRAEM": (92.37, 92.63, 78.93, 43.17),
    "STLM": (98.03, 97.65, 93.30, 62.95),
}
"""Table 2's last columns; those of RD4AD's row, 97.95, 98.12, 94.06 and 55.30, are RD++'s."""


@pytest.mark.parametrize("name", PRINTED)
def test_averages_of_table_2_are_those_of_the_three_data_sets(name: str) -> None:
    method = next(method for method in METHODS if method.name == name)
    assert method.visa is not None
    assert method.dagm is not None
    for metric, printed in zip(("image_auroc", "pixel_auroc", "aupro", "pixel_ap"), PRINTED[name], strict=True):
        values = [getattr(found, metric) for found in (method.visa, method.mvtec, method.dagm)]
        assert sum(values) / 3 == pytest.approx(printed, abs=0.07)


def test_stlm_is_as_in_the_paper_of_the_training() -> None:
    method = next(method for method in METHODS if method.name == "STLM")
    rows = {row.scope: row.values for table in TABLES if table.name == "table 2" for row in table.rows}
    for scope, found in (("MVTec", method.mvtec), ("VisA", method.visa), ("DAGM", method.dagm)):
        assert {metric: getattr(found, metric) for metric in rows[scope]} == rows[scope]
