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
from train.old_settings import BEFORE
from train.paper.grid import Run, check_same, plan, state
from train.paper.results import read_records

SMALL = ["--image-size", "64", "--epochs", "1", "--batch-size", "2"]


@pytest.fixture(scope="session")
def parts(tmp_path_factory) -> Path:
    """Two categories with names of MVTec AD's, in a folder that is called so."""
    root = tmp_path_factory.mktemp("mvtec", numbered=False)
    for seed, name in enumerate(("bottle", "carpet")):
        write_dataset(root, train=4, test_good=2, test_defective_per_kind=1, size=(96, 96), seed=seed, category=name)
    (root / "notes").mkdir()
    return root


@pytest.fixture
def presets(tmp_path) -> list[str]:
    """One of tests, and one of another name."""
    own = tmp_path / "table6-concat.yaml"
    own.write_text(Path(TWO_STREAMS).read_text() + "comparison: concat\n")
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
    listed = capsys.readouterr().out.partition("\n\n")[0].splitlines()
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
    assert (
        "image_size 64x64 (paper: 1024x1024), epochs 1 (paper: 200), teacher stlm-tiny (paper: sam_vit_h)"
        in " ".join(printed.split())
    )
    assert "NOT THE PAPER'S TEST PICTURES, by the number of defective ones: bottle 4 of 63" in printed
    assert "table 5" not in printed
    assert (output / "report.md").is_file()
    record = json.loads(next(output.glob("*/*/*/run.json")).read_text())
    assert f"date {record['date'][:10]}" in printed

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


def test_run_measured_at_another_size_is_measured_again(checkpoint, quick):
    run = Run("cpu", "plate", 0, quick, checkpoint.parent)
    (run.folder / "evaluation.json").write_text(json.dumps(sealed({"metric_size": [64, 80]})))
    assert state(run) == "to evaluate"
    assert state(replace(run, metric_size=(64, 80))) == "finished"
    assert state(replace(run, metric_size=(80, 64))) == "to evaluate"
    (run.folder / "evaluation.json").write_text("{")
    with pytest.raises(DataError, match="delete this file, and stlm grid measures the run again"):
        state(run)


def test_grid_of_before_the_starts_changed_is_told_how_to_go_on(tmp_path):
    (run,) = plan(presets=["paper"], categories=["a"], seeds=[0], settings={"epochs": 7}, output=tmp_path)
    run.folder.mkdir(parents=True)
    settings = {name: value for name, value in run.config.to_dict().items() if name not in BEFORE}
    cell = {"preset": "paper", "category": "a", "seed": 0, "data": tmp_path.name, "settings": settings}
    (run.folder / "grid.json").write_text(json.dumps(sealed(cell)))
    flags = "--aggregation-start torch --encoder-start identity"
    with pytest.raises(ConfigError, match=rf"begun by an older version, whose start these flags give: {flags}; else"):
        check_same(run, data=tmp_path)
    (same,) = plan(presets=["paper"], categories=["a"], seeds=[0], settings=BEFORE | {"epochs": 7}, output=tmp_path)
    check_same(same, data=tmp_path)
    (run.folder / "grid.json").write_text(json.dumps(sealed(cell | {"settings": same.config.to_dict()})))
    with pytest.raises(ConfigError) as told:  # such as this version makes it with these flags
        check_same(run, data=tmp_path)
    assert "older version" not in str(told.value)


def test_folder_with_the_papers_categories_and_another_name_is_warned_of(tmp_path, capsys):
    for name in ("tiles", "mvtec_ad"):
        arguments = ["grid", "--data", str(tmp_path / name), "--category", "bottle", "-o", str(tmp_path / "grid")]
        assert main([*arguments, "--dry-run"]) == 1  # there are no such folders, which is told after it
        told = "tiles has categories called as those of MVTec (bottle) and is not called so"
        assert (told in capsys.readouterr().err) == (name == "tiles")


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
        (["--data", "x", "--category", "a", "--metric-size", "0"], 2, "--metric-size is 0x0, expected 1 to 8192"),
        (["--data", "x", "--category", "a", "--metric-size", "9000x64"], 2, "--metric-size is 9000x64"),
        (["--report"], 1, "no finished run"),
    ],
)
def test_bad_usage_is_one_line(tmp_path, capsys, arguments, code, words):
    assert main(["grid", "-o", str(tmp_path / "grid"), *arguments]) == code
    assert words in capsys.readouterr().err


def test_damaged_record_is_named(tmp_path):
    folder = tmp_path / "cpu" / "plate" / "seed-0"
    folder.mkdir(parents=True)
    (folder / "grid.json").write_text("{")
    (folder / "evaluation.json").write_text("{}")
    with pytest.raises(DataError, match=r"grid\.json is not JSON"):
        read_records(tmp_path)
    (folder / "grid.json").write_text("{}")
    with pytest.raises(DataError, match="is not what stlm grid writes; delete the second"):
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
