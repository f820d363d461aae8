"""The paper's figures are entered as it prints them: its own averages come out of them."""

from __future__ import annotations

import statistics

import pytest

from train.paper.figures import METHODS, MVTEC, OBJECTS, PAPER, SCOPES, TABLES, TEXTURES

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


BY_NAME = {table.name: table for table in TABLES}


def printed(table: str, metric: str, preset: str = PAPER) -> dict[str, float]:
    rows = BY_NAME[table].rows
    return {row.scope: row.values[metric] for row in rows if row.preset == preset}


@pytest.mark.parametrize(
    ("table", "metric", "preset"),
    [
        ("table 1", "pixel_auroc", PAPER),
        ("table 3", "aupro", PAPER),
        *[("table 7", metric, PAPER) for metric in ("image_auroc", "pixel_auroc", "aupro")],
        *[("table 7", metric, "table7-no-teacher") for metric in ("image_auroc", "pixel_auroc", "aupro")],
    ],
)
def test_averages_are_those_of_the_categories(table, metric, preset):
    values = printed(table, metric, preset)
    for scope, categories in (("textures", TEXTURES), ("objects", OBJECTS), ("MVTec", MVTEC)):
        mean = statistics.mean(values[category] for category in categories)
        assert mean == pytest.approx(values[scope], abs=0.0101), scope


def test_pill_differs_between_tables_as_the_remarks_say():
    values = printed("table 1", "image_auroc")
    assert (values["pill"], printed("table 7", "image_auroc")["pill"]) == (98.20, 97.20)
    assert statistics.mean(values[name] for name in MVTEC) == pytest.approx(99.05 + 1 / 15, abs=0.01)


@pytest.mark.parametrize("metric", ["image_auroc", "pixel_auroc", "aupro"])
@pytest.mark.parametrize("preset", [PAPER, "table8-no-initial-weights"])
def test_table_8_averages_agree(metric, preset):
    values = printed("table 8", metric, preset)
    assert (5 * values["textures"] + 10 * values["objects"]) / 15 == pytest.approx(values["MVTec"], abs=0.011)


@pytest.mark.parametrize(("preset", "off"), [(PAPER, 0.011), ("table10-probability-1", 0.061)])
def test_table_10_averages_agree_as_far_as_the_remarks_say(preset, off):
    values = printed("table 10", "pixel_fnr", preset)
    assert (5 * values["textures"] + 10 * values["objects"]) / 15 == pytest.approx(values["MVTec"], abs=off)


@pytest.mark.parametrize(
    ("metric", "mean"), [("image_auroc", 98.03), ("pixel_auroc", 97.65), ("aupro", 93.30), ("pixel_ap", 62.95)]
)
def test_table_2_means_are_those_that_the_paper_prints_last(metric, mean):
    assert statistics.mean(printed("table 2", metric).values()) == pytest.approx(mean, abs=0.006)


def test_the_papers_own_setting_reads_the_same_in_every_table():
    for table in TABLES:
        for row in table.rows:
            if row.preset == PAPER and row.scope == "MVTec" and "aupro" in row.values:
                assert row.values["aupro"] == 94.92, table.name


def test_every_row_has_a_known_scope_and_the_metrics_of_its_table():
    assert [len(SCOPES[name]) for name in ("textures", "objects", "MVTec", "VisA", "DAGM")] == [5, 10, 15, 12, 10]
    for table in TABLES:
        for row in table.rows:
            assert row.scope in SCOPES
            assert set(row.values) == set(table.metrics), (table.name, row.label)
            assert row.preset == PAPER or row.preset.startswith(("table", "figure"))
