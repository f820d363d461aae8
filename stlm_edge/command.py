"""`stlm`: all programs under one name, each imported when it is called.

It does what `python -m train`, `python -m export`, … do, with the same options, and in every folder: `python -m train`
takes a `train.py` that happens to lie there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

import click

from stlm_edge.cli import add_shared_options, run
from stlm_edge.errors import DataError

Programs = Mapping[str, tuple[str, str]]
"""Name → module and variable of the click command, and what the list of commands says of it."""

TRAIN: Programs = {
    "train": ("train.__main__:fit", "Train a model and choose its threshold."),
    "resume": ("train.__main__:resume", "Go on with a training that was killed or interrupted."),
    "evaluate": ("train.__main__:evaluate", "Measure a checkpoint on the test pictures."),
    "threshold": ("stlm_edge.threshold_command:threshold", "Choose the threshold of a checkpoint or an engine again."),
    "retrain": (
        "stlm_edge.retrain_command:retrain",
        "Train again with pictures that were added since.",
    ),
    "preview": ("train.__main__:preview", "Draw pseudo anomalies into your own pictures."),
    "grid": ("train.__main__:grid", "Train and evaluate categories x presets x seeds."),
    "presets": ("train.__main__:list_presets", "List the presets."),
    "weights": ("train.__main__:weights", "Fetch published weights."),
    "fetch": ("train.__main__:fetch", "Fetch a public data set."),
}
FORMATS: Programs = {
    "onnx": ("export.commands:onnx", "Write an ONNX graph (.onnx)."),
    "engine": ("export.commands:engine", "Build a TensorRT plan (.plan)."),
    "openvino": ("export.commands:openvino", "Write an engine of OpenVINO (.xml)."),
}
EXPORT: Programs = {
    "export": ("stlm_edge.command:export", "Turn a checkpoint into an engine: .onnx, .plan or .xml."),
    "verify": ("export.commands:verify", "Compare an engine with its network."),
    "calibrate": ("stlm_edge.threshold_command:threshold", "Choose the threshold of an engine."),
    "report": ("stlm_edge.command:report", "Tell how a training or a shift went, or what a plan moves and costs."),
    "sensitivity": ("export.commands:sensitivity", "Say what INT8 does to the answers."),
    "triton": ("export.commands:triton", "Write a model repository of Triton Inference Server."),
    "deepstream": ("export.commands:deepstream", "Write what DeepStream needs to run an engine."),
}
RUN: Programs = {
    "camera": ("runtime.camera:command", "Inspect what a camera sees."),
    "inspect": ("runtime.inspect:command", "Inspect files and folders of pictures."),
    "review": ("runtime.review.__main__:command", "Review kept pictures in the browser, into a data set."),
    "doctor": ("runtime.doctor:command", "Say what this machine can run and what it lacks."),
}
REPORTS: Programs = {
    "training": ("train.report_command:command", "Make a page of a training from its folder."),
    "shift": ("runtime.report.command:command", "Make a page of a shift from its events (.jsonl)."),
    "plan": ("export.commands:report", "Tell what a plan moves and computes, and how fast it can be."),
}
OLD_NAMES = ("calibrate",)
"""Of commands that have another name today; taken and not listed."""
MEASURE: Programs = {
    "bench": ("stlm_edge.command:bench", "Measure latency, accuracy and more on your device."),
}
BENCHMARKS: Programs = {
    "accuracy": ("benchmarks.accuracy:command", "How good engines are, and how far each is from its network."),
    "compare": ("benchmarks.compare:command", "Whether it became slower: two records side by side."),
    "demo": ("benchmarks.demo:command", "What came of 'make demo'."),
    "gpu": ("benchmarks.gpu:command", "All that is to be measured on an NVIDIA GPU."),
    "latency": ("benchmarks.latency:command", "How long engines and PyTorch take from frame to verdict."),
    "loop": ("benchmarks.loop:command", "What the camera program itself costs."),
    "peers": ("benchmarks.peers:command", "Other methods beside ours, and the bar of Gabor filters."),
    "plan_counts": ("benchmarks.plan_counts:command", "What can be counted of a plan instead of timed."),
    "report": ("benchmarks.report:command", "Tables and pictures of records."),
    "sizes": ("benchmarks.sizes:command", "Which input size and precision to take on this device."),
    "training": ("benchmarks.training:command", "A training step and its pictures, beside the authors' way."),
}

SUFFIXES = {".onnx": "onnx", ".plan": "engine", ".xml": "openvino"}
"""Of an engine → what makes it."""
EVENTS = re.compile(r"\.jsonl(\.\d+)?(\.gz)?$")
"""A log of events by its name, also when it was set aside and packed."""


class Lazy(click.Group):
    """A group whose commands are known by name and imported when they are called."""

    def __init__(self, sections: Mapping[str, Programs], *, help: str) -> None:
        super().__init__(help=help)
        self.sections = sections
        self._programs = {name: program for programs in sections.values() for name, program in programs.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self._programs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in self._programs:
            return None
        command = load(self._programs[cmd_name][0])
        add_shared_options(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        resolved = super().resolve_command(ctx, args)
        ctx.obj = tuple(resolved[2])  # the arguments of the program itself, as `python -m` would hand them to it
        return resolved

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        for title, programs in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in programs.items() if name not in OLD_NAMES])


class Export(Lazy):
    """Makes the engine that `onnx`, `engine` or `openvino` asks for, or else the suffix of `--output`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        place = _first_word(args, FORMATS)
        if place is not None and args[place] in FORMATS:  # options may stand before it
            args = [args[place], *args[:place], *args[place + 1 :]]
        elif place is not None:
            output = _output(args)
            made = SUFFIXES.get(Path(output).suffix)
            if made is None:
                expected = (
                    f"expected a file with {', '.join(SUFFIXES)}, or one of {', '.join(FORMATS)} before {args[place]}"
                )
                raise click.UsageError(f"found {output or 'nothing'} as --output, {expected}", ctx)
            args = [made, *args]
        return super().parse_args(ctx, args)


class Report(Lazy):
    """Makes the report that is named, or else the one of what the first argument is."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        place = _first_word(args, REPORTS)
        if place is not None and args[place] in REPORTS:
            args = [args[place], *args[:place], *args[place + 1 :]]
        elif place is not None:
            args = [_report_of(args[place]), *args]
        return super().parse_args(ctx, args)


def _report_of(source: str) -> str:
    """Which of `REPORTS` is made of a file or folder. Raises `DataError` for what there is none of."""
    if Path(source).is_dir():
        return "training"
    if EVENTS.search(source):
        return "shift"
    if not source.endswith(".plan"):
        found = "of another kind" if Path(source).exists() else "not there"
        raise DataError(
            f"{source} is {found}, expected the folder of a training, logs named .jsonl, or a .plan; check the path"
        )
    return "plan"


def _first_word(args: Sequence[str], programs: Programs) -> int | None:
    """Where the first argument stands that is neither an option of one of these programs nor the value of one."""
    if all(argument.startswith("-") for argument in args):
        return None
    commands = [load(place) for place, _ in programs.values()]
    for command in commands:
        add_shared_options(command)
    options = [option for command in commands for option in command.params if isinstance(option, click.Option)]
    with_value = {name for option in options if not option.is_flag and not option.count for name in option.opts}
    is_value = False
    for place, argument in enumerate(args):
        if not is_value and not argument.startswith("-"):
            return place
        is_value = not is_value and argument in with_value
    return None


def load(place: str) -> click.Command:
    """The click command at `module:variable`."""
    module, _, variable = place.partition(":")
    command: click.Command = getattr(import_module(module), variable)
    return command


def _output(args: Sequence[str]) -> str:
    """The value of `--output` among arguments that nobody has parsed yet, empty without one."""
    for argument, following in zip(args, [*args[1:], ""], strict=True):
        if argument in ("-o", "--output"):
            return following
        if argument.startswith("--output="):
            return argument.removeprefix("--output=")
        if argument.startswith("-o"):
            return argument.removeprefix("-o")
    return ""


export = Export(
    {"Formats": FORMATS},
    help="Turn a checkpoint or graph into an engine that gives the same answers, such as\n\n"
    "\b\n  stlm export runs/bottle/model.safetensors -o bottle.plan\n\n"
    "The suffix of --output says what is made. 'stlm export FORMAT --help' lists the options of each.",
)
report = Report(
    {"Reports": REPORTS},
    help="Tell how something went or what it can do, such as\n\n"
    "\b\n  stlm report runs/bottle -o bottle.html\n  stlm report events.jsonl -o shift.html\n"
    "  stlm report bottle.plan\n\n"
    "What the report is of says which one is made. 'stlm report NAME --help' lists the options of each.",
)
bench = Lazy(
    {"Benchmarks": BENCHMARKS}, help="Measure on your device. 'stlm bench NAME --help' lists the options of each."
)
stlm = Lazy(
    {"Train": TRAIN, "Export": EXPORT, "Run": RUN, "Measure": MEASURE},
    help="Find defects on pictures of parts: train on good ones, export an engine, run it beside a camera.",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(stlm, argv)


if __name__ == "__main__":
    sys.exit(main())
