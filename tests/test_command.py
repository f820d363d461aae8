"""`stlm`: every program under one name, chosen by what is given, quick to start, whatever lies in the folder."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import click
import pytest

import benchmarks
import export.__main__
import train.__main__
from stlm_edge.command import BENCHMARKS, EXPORT, FORMATS, MEASURE, REPORTS, RUN, TRAIN, Lazy, load, main, stlm

START_LIMIT_S = 0.5


@pytest.mark.heavy  # some of them import what starts processes
@pytest.mark.parametrize("programs", [TRAIN, FORMATS, EXPORT, REPORTS, RUN, MEASURE, BENCHMARKS])
def test_every_name_leads_to_a_command(programs):
    for name, (place, text) in programs.items():
        assert isinstance(load(place), click.Command), name
        assert text.endswith(".")
        assert len(text) < 70


def test_nothing_of_train_and_export_is_left_out():
    offered = [load(place) for programs in (TRAIN, EXPORT, FORMATS, REPORTS) for place, _ in programs.values()]
    for group in (train.__main__.command, export.__main__.command):
        assert [name for name, each in group.commands.items() if each not in offered and not each.hidden] == []


def test_every_benchmark_has_a_name():
    folder = Path(benchmarks.__file__).parent
    programs = {
        path.parent.name if path.stem == "__main__" else path.stem
        for path in [*folder.glob("*.py"), *folder.glob("*/__main__.py")]
        if "\nmain = " in path.read_text()
    }
    assert set(BENCHMARKS) == programs
    described = (folder.parent / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert [name for name in BENCHMARKS if f"stlm bench {name}" not in described] == []


def helped(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The first line of what a command says of itself, `--help` appended."""
    assert main([*arguments, "--help"]) == 0
    return capsys.readouterr().out.partition("\n")[0]


@pytest.mark.parametrize(
    ("arguments", "made"),
    [
        (["model.safetensors", "-o", "a.onnx"], "onnx"),
        (["model.safetensors", "--output", "a.plan", "--target", "sm86"], "engine"),
        (["--data", "pictures", "--output=a.xml", "model.safetensors"], "openvino"),
        (["-oa.plan", "graph.onnx"], "engine"),
        (["-v", "graph.onnx", "-o", "a.plan"], "engine"),
        (["--log-format", "json", "graph.onnx", "-o", "a.plan"], "engine"),
        (["openvino", "model.safetensors", "-o", "a.onnx"], "openvino"),
        (["-v", "engine", "model.safetensors", "-o", "a.onnx"], "engine"),
        (["--target", "sm86", "engine", "model.safetensors", "-o", "a.onnx"], "engine"),
        (["--precision=fp16", "--category", "onnx", "engine", "model.safetensors", "-o", "a.onnx"], "engine"),
        (["-o", "a.plan", "--category", "onnx", "model.safetensors"], "engine"),
    ],
)
def test_export_makes_what_is_named_or_what_the_output_is_called(capsys, arguments, made):
    assert f" export {made} [OPTIONS]" in helped(capsys, "export", *arguments)


@pytest.mark.parametrize(
    ("arguments", "made"),
    [
        (["events.jsonl", "-o", "a.html"], "shift"),
        (["-o", "a.html", "--title", "plan", "line/events.jsonl.12.gz", "events.jsonl"], "shift"),
        (["a.plan", "-o", "a.png"], "plan"),
        (["plan", "events.jsonl"], "plan"),
    ],
)
def test_report_is_that_of_what_is_given(capsys, arguments, made):
    assert f" report {made} [OPTIONS]" in helped(capsys, "report", *arguments)


def test_report_of_what_is_not_there_or_of_another_kind_says_what_there_is(capsys, tmp_path):
    (tmp_path / "a.xml").touch()
    for name, found in (("gone", "not there"), ("a.xml", "of another kind")):
        assert main(["report", str(tmp_path / name), "-o", "a.html"]) == 1
        assert f"{name} is {found}, expected the folder of a training, logs named" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["report"]])
def test_command_left_out_gives_the_help_in_its_lines(capsys, arguments):
    main(arguments)
    told = capsys.readouterr()
    assert (told.out + told.err).count("\n  -v, --verbose  ") == 1


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["model.safetensors"], "nothing"),
        (["model.safetensors", "-o"], "nothing"),
        (["model.safetensors", "-o", "a.engine"], "a.engine"),
    ],
)
def test_export_says_which_outputs_there_are(capsys, arguments, found):
    assert main(["export", *arguments]) == 2
    expected = "expected a file with .onnx, .plan, .xml, or one of onnx, engine, openvino before model.safetensors"
    assert capsys.readouterr().err.endswith(f"Error: found {found} as --output, {expected}\n")


def test_options_before_the_format_reach_it(capsys, tmp_path):
    gone = str(tmp_path / "gone.safetensors")
    assert main(["export", "--target", "sm86", "engine", gone, "-o", str(tmp_path / "a.plan")]) == 1
    assert "unexpected extra argument" not in capsys.readouterr().err


def test_export_alone_lists_the_formats(capsys):
    assert main(["export", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in FORMATS)


def test_options_reach_the_program(capsys, tmp_path):
    assert main(["export", "graph.onnx", "-o", "a.plan", "--precision", "fp17"]) == 2
    assert "'fp17' is not one of 'fp32', 'fp16', 'int8'" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "gone.onnx"), str(tmp_path), "-o", str(tmp_path / "results")]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_old_names_are_taken_and_not_shown(capsys):
    assert main(["--help"]) == 0
    assert "calibrate" not in capsys.readouterr().out
    for command, old in (("train", "--exposure-jitter"), ("camera", "--allow-unblessed")):
        assert main([command, "--help"]) == 0
        assert old not in capsys.readouterr().out
    assert main(["train", "--data", "nowhere", "--exposure-jitter=2"]) == 1
    assert "brightness is 2.0, expected 0 to 1" in capsys.readouterr().err
    assert main(["export", "engine", "a.onnx", "-o", "a.plan", "--flavour", "trt"]) == 2
    assert "Invalid value for '--product'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "both",
    [
        ["train", "--data", "x", "--brightness", "0.1", "--exposure-jitter", "0.2"],
        ["train", "--data", "x", "--exposure-jitter=0.2", "--brightness=0.1"],
        ["export", "engine", "a.onnx", "-o", "a.plan", "--product", "tensorrt", "--flavour", "tensorrt-rtx"],
    ],
)
def test_old_and_new_name_of_one_option_together_are_wrong_usage(capsys, both):
    assert main(both) == 2
    assert "which are one option; keep --" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["threshold", "calibrate"])
def test_threshold_takes_a_checkpoint_or_an_engine(capsys, name):
    assert f" {name} [OPTIONS] CHECKPOINT_OR_ENGINE" in helped(capsys, name)


def test_unknown_name_is_wrong_usage(capsys):
    assert main(["trian"]) == 2
    assert "No such command 'trian'" in capsys.readouterr().err


def test_program_is_told_its_own_arguments(capsys, monkeypatch):
    @click.command(context_settings={"ignore_unknown_options": True})
    @click.argument("others", nargs=-1)
    @click.pass_context
    def told(context: click.Context, others: tuple[str, ...]) -> None:
        click.echo(context.find_object(tuple))

    monkeypatch.setattr("stlm_edge.command.load", lambda place: told)
    group = Lazy({"Benchmarks": {"told": ("a.module:told", "Tells.")}}, help="A group.")
    group.main(["told", "--data", "pictures"], standalone_mode=False, obj=("told", "--data", "pictures"))
    assert capsys.readouterr().out == "('--data', 'pictures')\n"


@pytest.mark.heavy
@pytest.mark.parametrize("arguments", [["--help"], ["camera", "--help"], ["export", "--help"], ["bench", "--help"]])
def test_start_up_time(arguments):
    """The fastest of five, in seconds of the processor, which other programs do not lengthen."""
    code = "import sys; from stlm_edge.command import main; sys.exit(main())"
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < START_LIMIT_S


def test_help_is_in_sections(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    positions = [said.index(f"\n{title}:\n") for title in stlm.sections]
    assert positions == sorted(positions)
    assert list(stlm.sections) == ["Train", "Export", "Run", "Measure"]
