"""What this machine can run, and what it lacks.

stlm doctor --engine stlm.plan
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stlm_edge.cli import run

if TYPE_CHECKING:
    from runtime.checkup.finding import Finding
    from runtime.plan_check import Machine
    from stlm_edge.steps import Outcome
    from stlm_edge.tensorrt import Gpu

Check = Callable[[], "list[Finding]"]

_SPARE_BYTES = 1 << 30
_ROOT = Path("/")


@click.command()
@click.option("--engine", type=click.Path(path_type=Path), help="Also try this one: .plan, .onnx or .xml.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--first-day",
    "report",
    metavar="OUT.zip",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Try everything that needs a GPU, for up to an hour, and write what came of it here, without pictures.",
)
@click.option(
    "--graph",
    "graphs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="For --first-day: an .onnx file to build plans of; repeatable.  [default: demo/plate.onnx]",
)
@click.option(
    "--data", type=click.Path(path_type=Path), help="For --first-day: pictures for it.  [default: drawn parts]"
)
def command(
    engine: Path | None, as_json: bool, report: Path | None, graphs: tuple[Path, ...], data: Path | None
) -> int:
    """Say what this machine can run engines with and what is missing, with the remedy.

    Exit code 0 if it can run any engine, with --engine that one, else 1. With --first-day 1 if any step failed.
    """
    if report is not None:
        return _first_day(report, graphs, data)
    if graphs or data is not None:
        raise click.UsageError("found --graph or --data, which are for --first-day OUT.zip")
    from stlm_edge.tensorrt import TITLES

    findings = examine(engine)
    backends = usable_backends(findings)
    is_fit = findings[-1].state == "ok" if engine is not None else bool(backends)
    if as_json:
        entries = [vars(finding) for finding in findings]
        click.echo(json.dumps({"fit": is_fit, "backends": backends, "findings": entries}, indent=2))
        return 0 if is_fit else 1
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        remedy = f"; {finding.remedy}" if finding.remedy and finding.state != "ok" else ""
        click.echo(f"{finding.state:<8} {finding.subject:<{width}}  {finding.found}{remedy}")
    can = f"runs engines on {', '.join(backends)}" if backends else "cannot run any engine; see the lines above"
    plans = f"; plans by {plan_driver(findings)}" if set(backends) & set(TITLES.values()) else ""
    click.echo(f"\nthis machine {can}{plans}")
    return 0 if is_fit else 1


def _first_day(report: Path, graphs: tuple[Path, ...], data: Path | None) -> int:
    from runtime.first_day import figures, first_day

    def tell(outcome: Outcome) -> None:
        reason = "" if outcome.reason is None else f": {outcome.reason}"
        click.echo(f"{outcome.status:<8} {outcome.name}, {outcome.seconds:.0f} s{reason}", err=True)

    all_done = first_day(report, graphs=graphs, data=data, tell=tell)
    for line in figures(report):
        click.echo(line)
    click.echo(f"{report}: logs and figures of all steps, without pictures; it can be sent as it is")
    return 0 if all_done else 1


def examine(engine: Path | None) -> list[Finding]:
    """Everything that is looked for, in the order of the report; the engine comes last."""
    from runtime.checkup.cameras import find_cameras, find_csi, find_genicam
    from runtime.checkup.engine import find_engine
    from runtime.checkup.jetson import find_jetpack, find_memory, find_power
    from runtime.checkup.libraries import (
        find_cuda_bindings,
        find_onnxruntime,
        find_opencv,
        find_openvino,
        find_pycuda,
        find_tensorrt,
        find_toolkit,
    )
    from runtime.checkup.nvidia import find_driver, find_jetson

    jetson, (driver, gpu) = find_jetson(_ROOT), find_driver(_ROOT)
    capability = None if gpu is None else gpu.compute_capability
    checks: list[Check] = [
        lambda: find_tensorrt("tensorrt", compute_capability=capability),
        lambda: find_tensorrt("tensorrt-rtx", compute_capability=capability),
        lambda: find_pycuda(_ROOT),
        find_cuda_bindings,
        find_openvino,
        find_onnxruntime,
        find_toolkit,
        lambda: find_opencv(is_jetson=bool(jetson)),
        lambda: find_cameras(_ROOT),
        lambda: find_csi(_ROOT) if jetson else [],
        find_genicam,
        find_space,
    ]
    if jetson:
        jetson += [*find_jetpack(_ROOT), *find_power(_ROOT), *find_memory(_ROOT)]
    findings = [*jetson, *driver, *_together(checks)]
    if engine is not None:
        findings.append(find_engine(engine, _machines(findings, gpu)))
    return findings


def usable_backends(findings: Sequence[Finding]) -> list[str]:
    """The backends that have all they need."""
    from runtime.checkup.libraries import ONNXRUNTIME, OPENCV, OPENVINO
    from runtime.checkup.nvidia import DRIVER, GPU
    from stlm_edge.tensorrt import TITLES

    fit = {finding.subject for finding in findings if finding.state == "ok"}
    needs = {
        **{title: {DRIVER, GPU, title, plan_driver(findings)} for title in TITLES.values()},
        OPENVINO: {OPENVINO},
        ONNXRUNTIME: {ONNXRUNTIME},
    }
    return [name for name, needed in needs.items() if needed | {OPENCV} <= fit]


def plan_driver(findings: Sequence[Finding]) -> str:
    """The package that plans are run by: cuda-bindings only where pycuda is not installed, as `open_driver` has it."""
    from runtime.checkup.libraries import BINDINGS, PYCUDA

    states = {finding.subject: finding.state for finding in findings}
    return BINDINGS if states.get(PYCUDA, "missing") == "missing" and states.get(BINDINGS) == "ok" else PYCUDA


def find_space() -> list[Finding]:
    """How much can be written where the program was started."""
    import shutil

    from runtime.checkup.finding import Finding

    try:
        folder = Path.cwd()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return [Finding("disk space", "broken", f"the folder is gone ({error.strerror})", "start it in another one")]
    found = f"{free / 1e9:.1f} GB free in {folder}"
    if free < _SPARE_BYTES:
        return [Finding("disk space", "missing", found, "free some; videos and overlays need it")]
    return [Finding("disk space", "ok", found)]


def _together(checks: Iterable[Check]) -> list[Finding]:
    """The findings of all checks, which mostly wait for other processes."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=4) as pool:
        return [finding for found in pool.map(lambda check: check(), checks) for finding in found]


def _machines(findings: Sequence[Finding], gpu: Gpu | None) -> list[Machine]:
    """What there is for plans, one for each TensorRT."""
    from runtime.plan_check import Machine
    from stlm_edge.tensorrt import TITLES

    return [
        Machine(product, finding.found, gpu)
        for product, title in TITLES.items()
        for finding in findings
        if finding.subject == title and finding.state == "ok"
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
