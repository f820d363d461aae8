"""The report of a grid: the paper's tables beside what was obtained, and what keeps apart that does not compare."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from train.config import from_dict, load_preset
from train.paper.comparison import Compared, compare
from train.paper.data_sets import DATA_SETS, DEFECTIVE, MVTEC
from train.paper.figure_1 import draw_figure_1
from train.paper.figures import TABLES
from train.paper.report import text, text_tables, write_report
from train.paper.results import Best, FinishedRun, Made, Obtained, average
from train.paper.text import TextTable

NAMES = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro", "pixel_fnr")
MADE = Made(device="cpu", date="2026-11-29T12:00:00+00:00", textures="/data/dtd/images", git={"commit": "a" * 40})


def record(preset: str, category: str, seed: int, value: float, **settings: Any) -> FinishedRun:
    """A run on MVTec AD as the preset has it, but for `settings`."""
    return FinishedRun(
        preset,
        category,
        seed,
        dict.fromkeys(NAMES, value),
        dict.fromkeys(NAMES, value / 2),
        data="mvtec",
        defective=DEFECTIVE.get(category),
        config=from_dict(load_preset(preset) | settings),
        made=MADE,
    )


def named(records: list[FinishedRun], name: str) -> TextTable:
    table = next(each for each in text_tables(records) if each.title.startswith(name))
    return table


def cells(table: TextTable, row: str) -> dict[str, str]:
    (found,) = [each for each in table.rows if each[0] == row]
    return dict(zip(table.columns, found, strict=True))


def rows(records: list[FinishedRun], name: str) -> dict[str, Compared]:
    (table,) = [each for each in TABLES if each.name == name]
    return {each.row.label: each for each in compare(table, records)}


def test_average_is_over_categories_and_its_spread_over_seeds():
    records = [
        record("paper", "carpet", 0, 0.9),
        record("paper", "carpet", 1, 0.8),
        record("paper", "bottle", 0, 0.7),
        record("paper", "bottle", 1, 0.6),
        record("cpu", "bottle", 0, 0.1),
    ]
    found = average(records, preset="paper", categories=("carpet", "bottle", "wood"), metric="aupro")
    assert found == Obtained(
        mean=pytest.approx(75), spread=pytest.approx(7.0711, abs=1e-4), seeds=2, categories=2, expected=3
    )
    lone = average(records[:3], preset="paper", categories=("carpet", "bottle"), metric="aupro")
    assert lone.spread is None  # only seed 0 has both
    assert average(records, preset="paper", categories=("grid",), metric="aupro") is None
    assert average(records, preset="cpu", categories=("bottle",), metric="aupro", group="tlm_only").mean == 5


def test_undefined_metrics_are_left_out():
    records = [replace(record("paper", "carpet", 0, 0.9), overall={"aupro": None}), record("paper", "wood", 0, 0.5)]
    assert average(records, preset="paper", categories=("carpet", "wood"), metric="aupro").mean == 50


def test_mean_over_fewer_categories_than_its_row_says_so():
    """A category without masks has figures over whole pictures alone."""
    whole = {"image_auroc": 0.8, "pixel_auroc": None}
    records = [replace(record("paper", "carpet", 0, 0.9), overall=whole), record("paper", "wood", 0, 0.5)]
    table = text_tables(records)[-1]
    (average_row,) = [row for row in table.rows if row[0] == "paper, average"]
    cells = dict(zip(table.columns, average_row, strict=True))
    assert (cells["I-AUROC"], cells["P-AUROC"], cells["TLM P-AUROC"]) == ("65.00", "50.00 (of 1)", "35.00")
    carpet = dict(zip(table.columns, table.rows[0], strict=True))
    assert (carpet["I-AUROC"], carpet["P-AUROC"]) == ("80.00", "–")


def test_tables_have_the_papers_number_beside_ours_and_a_dash_where_nothing_was_run(tmp_path):
    records = [record("table5-two-stage", "carpet", seed, 0.9 + seed / 100) for seed in (0, 1)]
    [table, overview] = text_tables(records)
    assert table.title == "table 5: training in one or two stages"
    assert table.rows == (
        ("one-stage", "99.05", "–", "98.26", "–", "94.92", "–", "–", "–"),
        *(("two-stage", "98.98", "90.50 ± 0.71", "98.06", "90.50 ± 0.71", "90.12", "90.50 ± 0.71", "1 of 15", "2"),),
    )
    assert overview.rows[0][0] == "table5-two-stage, carpet"
    assert overview.rows[0][7] == "45.25 ± 0.35"

    markdown, data = write_report(tmp_path, records)
    assert "| two-stage | 98.98 | 90.50 ± 0.71 |" in markdown.read_text()
    values = json.loads(data.read_text())
    assert values["tables"]["table 5"][1]["obtained"]["aupro"]["categories"] == 1
    assert values["tables"]["table 5"][0]["obtained"]["aupro"] is None
    assert values["methods"]["table 3"]["values"]["carpet"]["CFA"] == {"aupro": 96.54}
    assert values["runs"][0]["config"]["streams_first"] == 0.2
    widths = {len(line) for line in text(records).splitlines() if line.startswith(("one-stage", "two-stage"))}
    assert len(widths) == 1


def test_papers_own_setting_belongs_to_the_main_tables_alone():
    titles = [table.title.split(":")[0] for table in text_tables([record("paper", "bottle", 0, 0.9)])]
    assert titles == [
        *("table 1, I-AUROC", "table 1, P-AUROC"),
        *(f"table 2, {metric}" for metric in ("I-AUROC", "P-AUROC", "PRO", "AP")),
        "table 2 by category; the paper prints its averages alone",
        *("table 3, PRO", "all runs"),
    ]
    titles = [table.title.split(":")[0] for table in text_tables([record("cpu", "plate", 0, 0.9)])]
    assert titles == ["all runs"]


def test_main_tables_have_every_method_with_parameters_and_times(tmp_path):
    records = [record("paper", name, 0, 0.9) for name in MVTEC]
    table = named(records, "table 1, P-AUROC")
    assert table.columns[1:10] == (
        "DRAEM",
        "CFLOW",
        "PatchCore",
        "RD4AD",
        "SimpleNet",
        "DeSTSeg",
        "RD++",
        "FOD",
        "STLM",
    )
    assert [row[0] for row in table.rows[:5]] == ["carpet", "grid", "leather", "tile", "wood"]
    assert len(table.rows) == 15 + 3 + 2
    assert cells(table, "bottle")["FOD"] == "–"
    assert (cells(table, "average")["RD++"], cells(table, "average")["here"]) == ("98.25", "90.00")
    assert (cells(table, "parameters, M")["STLM"], cells(table, "parameters, M")["here"]) == ("16.56", "16.65")
    assert (cells(table, "inference, ms")["FOD"], cells(table, "inference, ms")["here"]) == ("103", "–")
    assert len(named(records, "table 3").columns) == 1 + 6 + 3
    markdown, picture, _ = write_report(tmp_path, records)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "![figure 1](figure-1.png)" in markdown.read_text()


def test_figure_1_has_a_line_for_what_was_obtained_on_all_categories():
    whole = Obtained(97.1, None, seeds=1, categories=15, expected=15)
    assert "the dashed line is" in draw_figure_1(whole, made="64x64, cpu")[1]
    for missing in (None, replace(whole, categories=14)):
        picture, caption = draw_figure_1(missing, made="64x64, cpu")
        assert picture != draw_figure_1(whole, made="64x64, cpu")[0]
        assert "not of all categories" in caption


def test_average_of_three_data_sets_wants_all_of_them():
    levels = {"MVTec": 0.9, "VisA": 0.6, "DAGM": 0.3}
    records = [
        replace(record("paper", category, 0, levels[name]), data=name)
        for name, categories in DATA_SETS.items()
        for category in categories
    ]
    table = named(records, "table 2, PRO")
    assert (cells(table, "average")["STLM"], cells(table, "average")["here"]) == ("93.30", "60.00")
    assert cells(table, "VisA")["categories"] == "12 of 12"
    assert len(named(records, "table 2 by category").rows) == 15 + 12 + 10
    assert cells(named(records[:-1], "table 2, PRO"), "average")["here"] == "–"


@pytest.mark.parametrize("data", ["tiles", None])
def test_categories_of_the_papers_names_in_another_data_set_stand_beside_none_of_its_figures(data):
    records = [replace(record(preset, "bottle", 0, 0.9), data=data) for preset in ("paper", "table6-concat")]
    assert [table.title for table in text_tables(records)] == ["all runs"]
    assert "No figures of the paper stand beside runs on" in text(records)
    assert not replace(records[0], data="visa").is_of_the_paper


def test_other_test_pictures_than_the_data_sets_are_told():
    whole = [record("paper", "bottle", 0, 0.9)]
    told = "NOT THE PAPER'S TEST PICTURES, by the number of defective ones: bottle 4 of 63."
    assert told not in " ".join(named(whole, "table 3").notes)
    assert f"† bottle; avg. objects; average: {told}" in named([replace(whole[0], defective=4)], "table 3").notes


def test_what_the_runs_were_made_with_stands_under_each_table():
    settings = {"image_size": (64, 96), "teacher": "mobile_sam", "precision": "bf16"}
    records = [record(preset, "bottle", 0, 0.9, **settings) for preset in ("paper", "table6-concat")]
    for name in ("table 1, P", "table 2 by", "table 3", "table 6", "all runs"):
        lines = " ".join(named(records, name).notes)
        assert "image_size 64x96 (paper: 1024x1024), epochs 200, teacher mobile_sam (paper: sam_vit_h)" in lines
        assert (
            "textures dtd/images (paper: DTD), metric_size each picture's own (authors' code: 1024x1024); "
            "precision bf16 (paper: fp32)" in lines
        )
        assert "data set mvtec; device cpu; commit aaaaaaaaaa; torch not told; date 2026-11-29" in lines


def test_row_that_differs_in_more_than_the_ablated_setting_is_marked():
    records = [
        record("paper", "bottle", 0, 0.9, image_size=(64, 64)),
        record("table6-concat", "bottle", 0, 0.8, image_size=(64, 64)),
        record("table6-cosine", "bottle", 0, 0.7, image_size=(96, 96), teacher="mobile_sam"),
    ]
    table = named(records, "table 6")
    assert [row[0] for row in table.rows] == ["cosine †", "subtraction", "concat", "STLM (product)"]
    said = "† cosine: image_size 96x96, elsewhere 64x64; teacher mobile_sam, elsewhere sam_vit_h."
    assert sorted(said[2:-1].split("; ")) == sorted(table.notes[-1][2:-1].split("; "))
    assert cells(table, "cosine †")["PRO here"] == "70.00"


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"device": "NVIDIA H200"}, "device NVIDIA H200, elsewhere cpu"),
        ({"git": {"commit": "b" * 40, "changed": True}}, "commit bbbbbbbbbb with changes, elsewhere aaaaaaaaaa"),
        ({"versions": {"torch": "2.9"}}, "torch 2.9, elsewhere not told"),
        ({"textures": None}, "textures none, elsewhere dtd/images"),
    ],
)
def test_row_that_was_made_another_way_is_marked(made, said):
    records = [record(preset, "bottle", 0, 0.9) for preset in ("paper", "table6-cosine", "table6-concat")]
    records[2] = replace(records[2], made=replace(MADE, **made))
    assert {label: each.marks for label, each in rows(records, "table 6").items() if each.marks} == {"concat": (said,)}


def test_row_measured_at_another_size_is_marked():
    records = [record(preset, "bottle", 0, 0.9) for preset in ("paper", "table6-concat")]
    records[1] = replace(records[1], metric_size=(1024, 1024))
    assert rows(records, "table 6")["concat"].marks == ("metric_size 1024x1024, elsewhere each picture's own",)


def test_mean_over_runs_of_several_settings_is_refused():
    records = [record("paper", "bottle", 0, 0.9, image_size=(64, 64)), record("paper", "carpet", 0, 0.8, epochs=7)]
    table = named(records, "table 3")
    assert cells(table, "average ‡")["here"] == "–"
    assert (cells(table, "carpet")["here"], cells(table, "bottle †")["here"]) == ("80.00", "90.00")
    (refused,) = rows(records, "table 3")["average"].refused
    assert "image_size 64x64 and 1024x1024" in refused
    assert "epochs 200 and 7" in refused
    overview = cells(named(records, "all runs"), "paper, average ‡")
    assert set(overview.values()) == {"paper, average ‡", "–", "1"}


def test_row_whose_ablation_was_taken_back_has_no_mean_and_one_of_a_third_value_is_marked():
    records = [
        record("table6-concat", "bottle", 0, 0.9, comparison="product"),
        record("table6-cosine", "bottle", 0, 0.8, comparison="subtraction"),
        record("table5-two-stage", "bottle", 0, 0.8, streams_first=0.5),
    ]
    found = rows(records, "table 6")
    assert found["concat"].refused == ("comparison is product, which the preset table6-concat has as concat",)
    assert found["concat"].obtained["aupro"] is None
    assert cells(named(records, "all runs"), "table6-concat, bottle †")["PRO"] == "90.00"
    assert found["cosine"].marks == ("comparison is subtraction, which the preset table6-cosine has as cosine",)
    assert rows(records, "table 5")["two-stage"].marks == (
        "streams_first is 0.5, which the preset table5-two-stage has as 0.2",
    )


def test_best_on_the_test_set_has_columns_of_its_own_that_say_so():
    best = Best(epoch=35, every=5, metrics=dict.fromkeys(NAMES, 0.99))
    records = [record("paper", "bottle", 0, 0.9), record("table8-no-initial-weights", "bottle", 0, 0.8)]
    assert "PRO best-on-test (epoch)" not in named(records, "table 8").columns
    records[0] = replace(records[0], best_on_test=best)
    table = named(records, "table 8")
    assert table.columns[1:4] == ("I-AUROC paper", "I-AUROC last", "I-AUROC best-on-test (epoch)")
    ours, none = cells(table, "STLM, average"), cells(table, "none, average")
    assert (ours["PRO last"], ours["PRO best-on-test (epoch)"]) == ("90.00", "99.00 (35)")
    assert (ours["epochs paper"], ours["epochs best-on-test (epoch)"]) == ("55", "35")
    assert (none["PRO last"], none["PRO best-on-test (epoch)"]) == ("80.00", "–")
    assert none["epochs best-on-test (epoch)"] == "–"
    for name in ("table 1, P", "table 8", "all runs, best on test"):
        assert "best-on-test (epoch 35)" in named(records, name).notes[-1]
        assert "SELECTED ON THE TEST SET" in named(records, name).notes[-1]
    assert cells(named(records, "table 3"), "bottle")["best-on-test (epoch)"] == "99.00 (35)"
    assert cells(named(records, "all runs, best on test"), "paper, bottle")["AP best-on-test (epoch)"] == "99.00 (35)"


def test_runs_of_older_versions_are_read_as_what_they_tell():
    old = replace(record("paper", "bottle", 0, 0.9), config=None, made=None, defective=None)
    lines = " ".join(named([old], "table 3").notes)
    assert "image_size not told" in lines
    assert "textures not told" in lines
    assert "device not told" in lines


def test_average_of_everything_is_over_one_data_set_and_told_beside_its_own_preset():
    records = [record("paper", name, 0, 0.9) for name in ("bottle", "carpet")]
    records += [replace(record("paper", name, 0, 0.5), data="tiles") for name in ("wood", "leather")]
    records.append(replace(record("cpu", "plate", 0, 0.5, epochs=3), data="demo"))
    table = named(records, "all runs")
    assert cells(table, "paper, average of mvtec")["PRO"] == "90.00"
    assert cells(table, "paper, average of tiles")["PRO"] == "50.00"
    told = [note for note in table.notes if note.startswith("Settings of")]
    assert "Settings of cpu: image_size 256x256, epochs 3 (preset cpu: 40)" in " ".join(told)
    assert len(told) == 2
