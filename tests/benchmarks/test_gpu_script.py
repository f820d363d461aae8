"""The script for a GPU does what it can without one, and no part takes another one with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu.__main__ import do, main, summary
from benchmarks.gpu.deployment import FORMS, Form, runner
from benchmarks.gpu.parts import Part, parts
from benchmarks.gpu.stages import StageClock
from benchmarks.record import read
from export.graph.deployment import DeploymentGraph
from stlm_edge.network.checkpoint import load
from stlm_edge.network.inference import InferencePath
from stlm_edge.plate.part import write_dataset

from ..export.tiny import SIZE, checkpoint


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("tiny") / "model.safetensors")


def inspector(path: Path) -> InferencePath:
    loaded = load(path)
    return InferencePath(loaded.network, loaded.spec).eval()


def done(part: Part, output: Path, *, left_s: float = 600.0, before: Any = ()) -> dict[str, Any]:
    return do(part, before, output=output, left_s=left_s)


@pytest.mark.slow
def test_what_needs_no_gpu_is_measured_on_a_processor(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dataset(tmp_path, train=1, test_good=1, test_defective_per_kind=1, size=(96, 128), seed=0, category="plate")
    output, data = tmp_path / "results", ["--data", str(tmp_path / "plate")]
    chosen = [word for name in ("ways", "stages", "tf32", "plan") for word in ("--part", name)]
    arguments = ["--checkpoint", str(tiny), "--output", str(output), *data, "--device", "cpu", "--minutes", "20"]
    assert main([*arguments, "--quick", *chosen]) == 0
    record = read(output / "gpu.json")
    assert record.is_complete
    found = {entry["name"]: (entry["status"], entry["reason"]) for entry in record.details["parts"]}
    assert found == {
        "ways": ("done", None),
        "stages": ("done", None),
        "tf32": ("left out", "needs a GPU"),
        "plan": ("left out", "needs a GPU"),
    }
    assert {"ways: authors' way total p50", "stages: stage 2 p50", "stages: total p50"} <= set(record.measures)
    assert "authors' way" in capsys.readouterr().out
    stages = read(output / "stages.json")
    names = [stage["name"] for stage in stages.details["stages"]]
    assert names[0] == "input"
    assert {"patch embed", "stage 0", "stage 3", "neck", "decoder", "feature aggregation", "score"} <= set(names)
    for turn, total in enumerate(stages.measures["total p50"].values):
        assert stages.measures["stage 2 p50"].values[turn] < total
    assert all(stage["floor_ms"] is None for stage in stages.details["stages"])


def test_stages_of_a_run_add_up_to_its_total(tiny: Path) -> None:
    place = torch.device("cpu")
    graph = DeploymentGraph(inspector(tiny))
    inspect = runner(graph, Form(), place)
    with StageClock(graph, place) as clock:
        clock.start()
        inspect(torch.zeros((1, *SIZE, 3), dtype=torch.uint8))
        spent = clock.stop_ms()
    assert sum(spent.values()) == pytest.approx(2 * spent["total"])
    assert min(spent.values()) >= 0
    assert not graph.scoring._forward_hooks


def test_all_forms_without_a_gpu_give_the_answers_of_the_network(tiny: Path) -> None:
    images = torch.randint(0, 256, (2, *SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    network = inspector(tiny)
    with torch.no_grad():
        expected = network(images)[1]
    for form in FORMS:
        if form.graphed:
            continue
        graph = DeploymentGraph(network, streams=form.streams)
        score = runner(graph, form, torch.device("cpu"))(images)[1]
        torch.testing.assert_close(score, expected, rtol=0, atol=3e-2 if form.half else 1e-4)


def test_part_that_fails_is_written_down_with_its_error(tiny: Path, tmp_path: Path) -> None:
    arguments = ("benchmarks.latency", "--checkpoint", str(tmp_path / "none"), "--way", "no such way")
    entry = done(Part("bad", "", arguments, 60), tmp_path)
    assert entry["status"] == "failed"
    assert "error: found the way 'no such way'" in entry["reason"]
    assert entry["record"] is None
    assert (tmp_path / "bad.log").exists()
    assert any("no such way" in line for line in summary([entry]))


def test_part_whose_time_is_over_is_stopped(tmp_path: Path) -> None:
    entry = done(Part("long", "", ("http.server", "0", "--bind", "127.0.0.1"), 0.5, writes_record=False), tmp_path)
    assert entry["status"] == "stopped"
    assert "were over" in entry["reason"]


def test_part_is_left_out_without_time_or_what_it_builds_on(tmp_path: Path) -> None:
    part = Part("b", "", ("http.server",), 60, after="a")
    assert done(part, tmp_path)["reason"] == "a was not done"
    ready = [{"name": "a", "status": "done"}]
    assert done(part, tmp_path, left_s=1.0, before=ready)["reason"] == "no time was left"
    assert not list(tmp_path.iterdir())


def test_most_important_parts_come_first_and_engines_are_built_before_they_run(tmp_path: Path) -> None:
    listed = parts(
        Path("model.safetensors"), graphs=[Path("a.onnx")], output=tmp_path, device="cuda", data=None, quick=False
    )
    names = [part.name for part in listed]
    assert names[0] == "ways"
    assert names.index("build-a") < names.index("plan-a") < names.index("ways-8")
    assert len(set(names)) == len(names)
    assert all(part.lacks is None for part in listed)


def test_bad_input_is_one_line(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--output", str(tmp_path / "out"), "--device", "cpu"]
    (tmp_path / "file").touch()
    for arguments, said in (
        (["--checkpoint", str(tmp_path / "none"), *common], "not a file"),
        (["--checkpoint", str(tiny), *common, "--part", "nothing"], "expected some of ways"),
        (["--checkpoint", str(tiny), "--device", "cpu", "--output", str(tmp_path / "file" / "x")], "cannot write"),
        (["--checkpoint", str(tiny), *common, "--graph", str(tmp_path / "none.onnx")], "none.onnx is not a file"),
    ):
        assert main(arguments) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
    assert not (tmp_path / "out").exists()
