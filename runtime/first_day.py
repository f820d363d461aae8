"""The first day on a machine with a GPU: all that is to be known of it, in one file to send back.

The doctor, plans of a graph in FP16 and INT8, their verification, the tests that need a GPU, a thousand frames through
the camera program, and the latency, beside PyTorch's where it is installed. Each is a process of its own; whatever
fails is told with its log, and the rest goes on.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path

from stlm_edge.credentials import without_credentials
from stlm_edge.errors import ConfigError, StlmError
from stlm_edge.files import cannot_write, folder_beside, home, replacing
from stlm_edge.measure import program
from stlm_edge.revision import version
from stlm_edge.sidecar import Sidecar
from stlm_edge.steps import Outcome, do
from stlm_edge.tensorrt import find_gpu

DEMO_GRAPH = Path("demo/plate.onnx")
FRAMES = 1000

_ROOT = Path(__file__).resolve().parents[1]
_WEIGHTS = _ROOT / "train" / "pretrained" / "plate" / "model.safetensors"
_TESTS = _ROOT / "tests"
_KEPT = (".json", ".log")
"""Suffixes of what goes into the file: no pictures, no graphs, no plans."""

_MINUTE_S = 60.0


@dataclass
class FirstDay:
    """All steps, each of which can be asked for by its name.

    Attributes:
        output: the .zip file. It is written anew after each step, so that it is there if the machine goes down.
        work: an empty folder for what the steps write.
        graphs: ONNX files to build plans of; none for that of `make demo`.
        data: pictures to verify on, in the layout of MVTec AD to calibrate INT8 by; None for drawn parts.
        tell: given each outcome.
    """

    output: Path
    work: Path
    graphs: tuple[Path, ...]
    data: Path | None
    tell: Callable[[Outcome], None]
    outcomes: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._program = version()

    def run(self) -> bool:
        """Do all there is to be done; returns whether nothing failed. Raises `OutputError`."""
        self._do("doctor", "runtime.doctor", limit_s=5 * _MINUTE_S)
        data = self.data or self._drawn()
        graphs = self.graphs or self._demo_graph()
        plans = [plan for graph in graphs for plan in self._plans(graph, data)]
        self._gpu_tests()
        for plan in plans:
            source, summary = f"test://?frames={FRAMES}", str(self.work / f"frames-{plan.stem}.json")
            arguments = ("--engine", str(plan), "--source", source, "--summary", summary)
            self._do(f"frames-{plan.stem}", "runtime.camera", *arguments, limit_s=10 * _MINUTE_S)
        self._latency(plans)
        return all(outcome.status in ("done", "left out") for outcome in self.outcomes)

    def _drawn(self) -> Path | None:
        folder = self.work / "drawn"
        amount = ("--train", "64", "--test-good", "12", "--defects", "3")
        drawn = self._do("pictures", "stlm_edge.plate", str(folder), *amount, limit_s=2 * _MINUTE_S)
        return folder / "plate" if drawn else None

    def _demo_graph(self) -> tuple[Path, ...]:
        """The graph of `make demo`, or of the weights that it begins with, where they can be traced."""
        if DEMO_GRAPH.exists():
            return (DEMO_GRAPH,)
        if find_spec("torch") is None:
            self._note(
                Outcome(
                    "graph",
                    "failed",
                    f"found no {DEMO_GRAPH} and no torch to trace its network with; run 'make demo' on another machine "
                    f"and copy {DEMO_GRAPH} and {DEMO_GRAPH}.json here",
                )
            )
            return ()
        graph = self.work / "plate.onnx"
        traced = self._do("graph", "export", "onnx", str(_WEIGHTS), "-o", str(graph), limit_s=10 * _MINUTE_S)
        return (graph,) if traced else ()

    def _plans(self, graph: Path, data: Path | None) -> list[Path]:
        """The plans of a graph, verified: in FP16 and INT8 of one in float32, of others in their own precision."""
        try:
            precision = Sidecar.read(graph).engine.precision
        except StlmError as error:
            self._note(Outcome(f"build-{graph.stem}", "failed", str(error)))
            return []
        plans = []
        pictures = () if data is None else ("--data", str(data))
        for wanted in ("fp16", "int8") if precision == "fp32" else (precision,):
            plan = self.work / f"{graph.stem.removesuffix(f'.{wanted}')}.{wanted}.plan"
            arguments = (str(graph), "-o", str(plan), "--precision", wanted, *pictures)
            if not self._do(f"build-{plan.stem}", "export", "engine", *arguments, limit_s=30 * _MINUTE_S):
                continue
            plans.append(plan)
            if data is not None:
                against = ("--reference", str(graph), *pictures, "--json", str(self.work / f"verify-{plan.stem}.json"))
                self._do(f"verify-{plan.stem}", "export", "verify", str(plan), *against, limit_s=15 * _MINUTE_S)
        return plans

    def _gpu_tests(self) -> None:
        missing = [name for name in ("pytest", "torch") if find_spec(name) is None]
        reason = None
        if find_gpu() is None:
            reason = "found no NVIDIA GPU"
        elif not _TESTS.exists():
            reason = "the tests come with a clone of the repository alone"
        elif missing:
            reason = f"needs {' and '.join(missing)}"
        if reason is not None:
            self._note(Outcome("gpu-tests", "left out", reason))
            return
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", str(_TESTS)]
        self._run("gpu-tests", command, shown=["pytest", "-m", "gpu"], limit_s=20 * _MINUTE_S)

    def _latency(self, plans: Sequence[Path]) -> None:
        engines = [word for plan in plans for word in ("--engine", str(plan))]
        ways: list[str] = []
        if find_spec("torch") is not None and not self.graphs:  # of a user's own graph there is no checkpoint here
            ways = ["--checkpoint", str(_WEIGHTS), "--device", "cuda", "--way", "eager", "--way", "half"]
        if not engines:
            self._note(Outcome("latency", "left out", "there is no plan to measure"))
            return
        record = ("--json", str(self.work / "latency.json"))
        self._do("latency", "benchmarks.latency", *ways, *engines, *record, limit_s=15 * _MINUTE_S)

    def _do(self, name: str, module: str, *arguments: str, limit_s: float) -> bool:
        shown = ["python", "-m", module, *arguments]
        return self._run(name, [*program(module), *arguments], shown=shown, limit_s=limit_s)

    def _run(self, name: str, command: Sequence[str], *, shown: Sequence[str], limit_s: float) -> bool:
        outcome = do(name, command, shown=shown, log=self.work / f"{name}.log", limit_s=limit_s)
        self._note(outcome)
        return outcome.status == "done"

    def _note(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self._write()
        self.tell(outcome)

    def _write(self) -> None:
        record = {
            "program": self._program,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "steps": [outcome.to_json() for outcome in self.outcomes],
        }
        files = sorted(path for path in self.work.iterdir() if path.suffix in _KEPT)
        with replacing(self.output) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("first-day.json", self._anonymous(json.dumps(record, indent=2)) + "\n")
            for path in files:
                archive.writestr(path.name, self._anonymous(path.read_text(errors="replace")))

    def _anonymous(self, text: str) -> str:
        """Without secrets, and without names of this machine and its user."""
        names = {str(self.work): "WORK", str(home()): "~"}
        if self.data is not None:
            names[str(self.data)] = "DATA"
        for name, shown in names.items():
            if len(name) > 1:
                text = text.replace(name, shown)
        host = socket.gethostname()
        if host not in ("", "localhost"):
            text = re.sub(rf"\b{re.escape(host)}\b", "HOST", text)
        return without_credentials(text)


def first_day(output: Path, *, graphs: Sequence[Path], data: Path | None, tell: Callable[[Outcome], None]) -> bool:
    """Do all steps and write `output`; returns whether nothing failed.

    Args:
        graphs, data, tell: see `FirstDay`.
    Raises:
        ConfigError: if a graph or the pictures are not there.
        OutputError: if `output` cannot be written.
    """
    for path in [*graphs, *([] if data is None else [data])]:
        if not path.exists():
            raise ConfigError(f"{path} does not exist, expected a graph (.onnx) or pictures; check the path")
    if output.suffix != ".zip":
        raise ConfigError(f"found --first-day {output}, expected a file to write with the suffix .zip; name one")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with folder_beside(output.absolute()) as folder:
            return FirstDay(output, folder, tuple(graphs), data, tell).run()
    except OSError as error:
        raise cannot_write(output, error) from error


def figures(output: Path) -> list[str]:
    """Of each plan that its frames went through: what they took."""
    lines = []
    with zipfile.ZipFile(output) as archive:
        for name in archive.namelist():
            if name.startswith("frames-") and name.endswith(".json"):
                total = json.loads(archive.read(name))["latency"]["total"]
                plan = name.removeprefix("frames-").removesuffix(".json")
                lines.append(
                    f"{plan}: {total['p50_ms']:.1f} ms (p50), {total['p95_ms']:.1f} ms (p95), frame to verdict"
                )
    return lines
