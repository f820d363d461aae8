"""Grids of runs: what is done is skipped, what fails does not stop the rest, and the paper's tables stand beside."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from stlm_edge.errors import ConfigError, DataError
from stlm_edge.network.checkpoint import load, save
from stlm_edge.plate.part import write_dataset
from stlm_edge.seal import sealed
from tests.settings import TWO_STREAMS
from train.__main__ import main
from train.paper.grid import Run, plan, state
from train.paper.results import FinishedRun, Obtained, average, read_records, text, text_tables, write_report

SMALL = ["--image-size", "64", "--epochs", "1", "--batch-size", "2"]


@pytest.fixture(scope="session")
def parts(tmp_path_factory) -> Path:
    """Two categories with names of MVTec AD's."""
    root = tmp_path_factory.mktemp("parts")
    for seed, name in enumerate(("bottle", "carpet")):
        write_dataset(root, train=4, test_good=2, test_defective_per_kind=1, size=(96, 96), seed=seed, category=name)
    (root / "notes").mkdir()
    return root


@pytest.fixture
def presets(tmp_path) -> list[str]:
    """One of tests, and one of another name."""
    own = tmp_path / "table6-concat.yaml"
    shutil.copy(TWO_STREAMS, own)
    return ["--preset", TWO_STREAMS, "--preset", str(own)]


def stamps(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.glob("*/*/*/model.safetensors")}


@pytest.mark.slow
def test_grid_killed_and_called_again_does_only_what_is_left(parts, presets, tmp_path, capsys):
    output = tmp_path / "grid"
    arguments = ["grid", "--data", str(parts), "--category", "bottle", *presets, *SMALL, "-o", str(output)]
    process = subprocess.Popen([sys.executable, "-m", "train", *arguments], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(output.glob("*/*/*/evaluation.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {str(path.with_name("model.safetensors")) for path in output.glob("*/*/*/evaluation.json")}
    before = stamps(output)
    assert len(finished) == 1

    assert main([*arguments, "--dry-run"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == 2
    assert sum(line.startswith("finished ") for line in listed) == 1
    assert stamps(output) == before

    assert main(arguments) == 0
    assert len(stamps(output)) == 2
    assert {path: stamp for path, stamp in stamps(output).items() if path in finished} == {
        path: before[path] for path in finished
    }
    printed = capsys.readouterr().out
    assert "table 6: input of the feature aggregation" in printed
    assert "table 5" not in printed
    assert (output / "report.md").is_file()

    assert main(["grid", "--report", "-o", str(output)]) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.heavy
def test_run_that_fails_does_not_end_the_others(parts, tmp_path, capsys):
    data = tmp_path / "parts"
    shutil.copytree(parts, data)
    (data / "bottle" / "train" / "good" / "000.png").write_bytes(b"")
    output = tmp_path / "grid"
    arguments = ["grid", "--data", str(data), "--all-categories", "--preset", TWO_STREAMS, *SMALL, "-o", str(output)]
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert "demo, carpet" in captured.out
    last = captured.err.splitlines()[-1]
    assert last.startswith("failed: demo, bottle, seed 0: ")
    assert "000.png" in last

    shutil.copy(parts / "bottle" / "train" / "good" / "000.png", data / "bottle" / "train" / "good" / "000.png")
    before = stamps(output)
    assert main(arguments) == 0  # what failed is tried again, what is done is not
    assert {path: stamp for path, stamp in stamps(output).items() if path in before} == before
    assert {record.category for record in read_records(output)} == {"bottle", "carpet"}

    capsys.readouterr()
    assert main([*arguments, "--epochs", "2"]) == 1
    assert "epochs 1, now 2" in capsys.readouterr().err
    renamed = tmp_path / "others"
    data.rename(renamed)
    assert main(["grid", "--data", str(renamed), *arguments[3:]]) == 1
    assert "was run on parts, now others" in capsys.readouterr().err


def test_state_is_told_from_the_folder(checkpoint, quick):
    run = Run("cpu", "plate", 0, quick, checkpoint.parent)
    assert state(run) == "to evaluate"
    (run.folder / "evaluation.json").write_text("{}")
    assert state(run) == "finished"
    loaded = load(checkpoint)
    save(checkpoint, replace(loaded, spec=replace(loaded.spec, threshold=None)))
    assert state(run) == "to train"  # a training writes the threshold last
    checkpoint.write_bytes(b"half a file")
    assert state(run) == "to train"
    (run.folder / "state.pt").write_bytes(b"")
    assert state(run) == "to resume"


def test_plan_takes_the_first_seed_of_everything_first(tmp_path):
    runs = plan(presets=["cpu"], categories=["b", "a"], seeds=[3, 1], settings={"epochs": 7}, output=tmp_path)
    assert [(run.category, run.seed) for run in runs] == [("b", 3), ("a", 3), ("b", 1), ("a", 1)]
    assert {run.config.epochs for run in runs} == {7}
    assert [run.config.seed for run in runs] == [3, 3, 1, 1]
    assert runs[0].folder == tmp_path / "cpu" / "b" / "seed-3"


def test_presets_of_one_name_are_refused(tmp_path):
    own = tmp_path / "cpu.yaml"
    own.write_text("epochs: 1\n")
    with pytest.raises(ConfigError, match="same name"):
        plan(presets=["cpu", str(own)], categories=["a"], seeds=[0], settings={}, output=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "--data"),
        (["--data", "x"], 2, "--all-categories"),
        (["--data", "x", "--category", "a", "--all-categories"], 2, "--all-categories"),
        (["--data", "x", "--category", "a", "--seeds", "1,b"], 2, "whole numbers"),
        (["--data", "x", "--category", "a", "--seed", "1"], 2, "--seed"),
        (["--data", "x", "--category", "a", "--preset", "none"], 1, "no preset 'none'"),
        (["--data", "nowhere", "--all-categories"], 1, "nowhere"),
        (["--report"], 1, "no finished run"),
    ],
)
def test_bad_usage_is_one_line(tmp_path, capsys, arguments, code, words):
    assert main(["grid", "-o", str(tmp_path / "grid"), *arguments]) == code
    assert words in capsys.readouterr().err


def record(preset: str, category: str, seed: int, value: float) -> FinishedRun:
    names = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro", "pixel_fnr")
    return FinishedRun(preset, category, seed, dict.fromkeys(names, value), dict.fromkeys(names, value / 2))


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
    widths = {len(line) for line in text(records).splitlines() if line.startswith(("one-stage", "two-stage"))}
    assert len(widths) == 1


def test_papers_own_setting_belongs_to_the_main_tables_alone():
    titles = [table.title.split(":")[0] for table in text_tables([record("paper", "bottle", 0, 0.9)])]
    assert titles == ["table 1", "table 2", "table 3", "all runs"]
    titles = [table.title.split(":")[0] for table in text_tables([record("cpu", "plate", 0, 0.9)])]
    assert titles == ["all runs"]


def test_damaged_record_is_named(tmp_path):
    folder = tmp_path / "cpu" / "plate" / "seed-0"
    folder.mkdir(parents=True)
    (folder / "grid.json").write_text("{")
    (folder / "evaluation.json").write_text("{}")
    with pytest.raises(DataError, match=r"grid\.json is not JSON"):
        read_records(tmp_path)
    (folder / "grid.json").write_text("{}")
    with pytest.raises(DataError, match="no finished run"):
        read_records(tmp_path)
    (folder / "grid.json").write_text(json.dumps({"preset": "cpu", "category": "plate", "seed": 0}))  # of before seals
    measured = {"overall": {"image_auroc": 0.91}, "tlm_only": {"overall": {"image_auroc": None}}}
    (folder / "evaluation.json").write_text(json.dumps(sealed(measured)))
    assert read_records(tmp_path)[0].overall == {"image_auroc": 0.91}
    (folder / "evaluation.json").write_text(json.dumps(sealed(measured)).replace("0.91", "0.97"))
    with pytest.raises(DataError, match="another SHA-256 than it says"):
        read_records(tmp_path)
    (folder / "evaluation.json").write_text(json.dumps(sealed(measured | {"tlm_only": None})))  # without two streams
    assert read_records(tmp_path)[0].tlm_only == {}
    (folder / "evaluation.json").write_text(json.dumps(measured | {"overall": {"image_auroc": "high"}}))
    with pytest.raises(DataError, match="expected a number"):
        read_records(tmp_path)
