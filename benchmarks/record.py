"""What a benchmark writes down: figures with the command, device, versions and commit that they came from.

Every benchmark's JSON has the same frame: `measures` are what `benchmarks.compare` compares, one number for each turn;
`details` are whatever else its tables and plots need.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any, Literal, get_args

import click

from stlm_edge.errors import DataError, SpecError, shown
from stlm_edge.files import require_place, write_text
from stlm_edge.records import MAY_LACK, build, read_object
from stlm_edge.revision import git_state
from stlm_edge.tensorrt import find_gpu

SCHEMA_VERSION = 2

INCOMPLETE = "INCOMPLETE: this run broke off, so figures are missing"
"""The mark of a record whose benchmark was interrupted or failed."""

Better = Literal["lower", "higher"]

_CPU_FEATURES = (
    *("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"),
    *("asimd", "bf16", "i8mm"),
)
"""Those that decide which kernels a library picks, as Linux names them."""

_PACKAGES = (
    *("numpy", "onnx", "opencv-python", "opencv-python-headless", "stlm-edge", "timm", "torch", "anomalib"),
    *("openvino", "nncf", "onnxruntime", "onnxruntime-gpu"),
    *("tensorrt", "tensorrt-rtx-cu13", "nvidia-modelopt", "cuda-bindings", "pycuda"),
)
"""Those that speed and accuracy depend on."""


@dataclass(frozen=True)
class Device:
    """What a benchmark ran on; no name of the machine.

    Attributes:
        features: of the processor's instruction set, those that kernels are chosen by.
        cores: that this process may use.
        gpu: the product's name; None without one.
        compute_capability: such as `sm86`.
    """

    processor: str
    features: tuple[str, ...]
    cores: int
    gpu: str | None = None
    compute_capability: str | None = None

    def __str__(self) -> str:
        count = f"{self.cores} core{'s' * (self.cores != 1)}"
        cores = f"{self.processor}, {count}, {' '.join(self.features) or 'no vector extensions'}"
        return cores if self.gpu is None else f"{self.gpu} ({self.compute_capability}) on {cores}"


@dataclass(frozen=True)
class Measure:
    """A figure, once for each turn of the benchmark.

    Attributes:
        unit: `ms`, `MB` (10⁶ bytes), `frames/s`, `%`, `kernels`, …
        better: which way is progress.
        values: at least one, finite; in the order of the turns, so that those of one turn belong together.
        is_exact: the same in every run on any machine, so that any change is real.
    """

    unit: str
    better: Better
    values: tuple[float, ...]
    is_exact: bool = False

    def __post_init__(self) -> None:
        if not self.values or not all(math.isfinite(value) for value in self.values):
            raise SpecError(f"a measure has the values {self.values}, expected at least one and finite ones only")
        if self.better not in get_args(Better):
            raise SpecError(f"a measure is better {self.better!r}, expected lower or higher")

    @property
    def median(self) -> float:
        return median(self.values)


@dataclass(frozen=True)
class GitState:
    """The toolkit's commit, and whether files differed from it; None where nobody knows."""

    commit: str
    changed: bool | None


@dataclass(frozen=True)
class Record:
    """A benchmark's JSON.

    Attributes:
        benchmark: the module's name, such as `latency`.
        command: as it was typed.
        date: of its end, ISO 8601, UTC.
        git: None where it is not run from a repository.
        is_complete: False if it was interrupted or failed: then figures are missing.
        measures: by name; names within one benchmark are stable, so that two records can be compared.
        details: JSON values of the benchmark's own.
        made_by_commit: the last commit that could make such a record, where today's benchmarks cannot.
    """

    benchmark: str
    command: str
    date: str
    device: Device
    versions: dict[str, str]
    git: GitState | None
    is_complete: bool
    measures: dict[str, Measure]
    details: dict[str, Any]
    schema_version: int = SCHEMA_VERSION
    made_by_commit: str | None = field(default=None, metadata=MAY_LACK)

    @property
    def commit(self) -> str:
        """Short, with a + if files differed from it."""
        if self.git is None:
            return "no commit"
        return self.git.commit[:7] + ("+" if self.git.changed else "")


@dataclass
class Recorder:
    """What a running benchmark fills in; see `recording`."""

    benchmark: str
    command: str
    path: Path | None
    measures: dict[str, Measure] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def measure(self, name: str, values: list[float], *, unit: str, better: Better, is_exact: bool = False) -> None:
        """Raises `SpecError` if there is no value, or one is not finite."""
        self.measures[name] = Measure(unit, better, tuple(values), is_exact)

    def record(self, *, is_complete: bool) -> Record:
        git = git_state()
        return Record(
            benchmark=self.benchmark,
            command=self.command,
            date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            device=device(),
            versions=versions(),
            git=None if git is None else GitState(**git),
            is_complete=is_complete,
            measures=dict(self.measures),
            details=dict(self.details),
        )

    def save(self, *, is_complete: bool = False) -> None:
        """Write what there is so far, atomically; a kill loses only what came after. Raises `OutputError`."""
        if self.path is not None:
            write(self.path, self.record(is_complete=is_complete))


@contextmanager
def recording(benchmark: str, path: Path | None) -> Iterator[Recorder]:
    """Record a benchmark, to `path` if it is given.

    If the block is left by an error or Ctrl-C, what there is is written and marked as incomplete, unless there is
    nothing yet. Raises `OutputError` before the work if nothing can be written at `path`.
    """
    if path is not None:
        require_place(path)
    context = click.get_current_context(silent=True)
    arguments = context.find_object(tuple) if context is not None else None
    typed = shlex.join(["python", "-m", f"benchmarks.{benchmark}", *(arguments or ())])
    recorder = Recorder(benchmark, typed, path)
    try:
        yield recorder
    except BaseException:
        if recorder.measures or recorder.details:
            recorder.save(is_complete=False)
            if path is not None:
                click.echo(f"{path} holds a part of the figures, marked as incomplete", err=True)
        raise
    recorder.save(is_complete=True)


def write(path: Path, record: Record) -> None:
    """Write a record as JSON, atomically. Raises `OutputError`."""
    write_text(path, json.dumps(asdict(record), indent=1) + "\n")


def read(path: Path) -> Record:
    """A record that a benchmark wrote.

    Raises:
        DataError: if the file is missing, damaged, of another schema, or no record.
    """
    again = "measure again with this version of stlm-edge, or name another file"
    try:
        content = read_object(path, error=DataError, remedy=again)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; expected the JSON of a benchmark (its --json)") from None
    if content.get("schema_version") != SCHEMA_VERSION or "benchmark" not in content:
        found = (
            f"schema version {shown(content['schema_version'])}"
            if "schema_version" in content
            else "no benchmark's record"
        )
        raise DataError(f"{path} holds {found}, expected schema version {SCHEMA_VERSION} of a benchmark; {again}")
    try:
        return build(Record, content, remedy=again)
    except SpecError as error:
        raise DataError(f"{path} is damaged: {error}") from None


def device() -> Device:
    """The machine that this process runs on."""
    core: dict[str, str] = {}
    with suppress(OSError):
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
        pairs = (line.partition(":") for line in first.splitlines())
        core = {key.strip(): value.strip() for key, _, value in pairs}
    flags = (core.get("flags") or core.get("Features") or "").split()
    processor = core.get("model name") or core.get("Model") or platform.machine()
    if "cpu family" in core:
        processor = f"{processor} (family {core['cpu family']}, model {core.get('model', '?')})"
    gpu = find_gpu()
    return Device(
        processor=processor,
        features=tuple(name for name in _CPU_FEATURES if name in flags),
        cores=len(os.sched_getaffinity(0)),
        gpu=None if gpu is None else gpu.name,
        compute_capability=None if gpu is None else gpu.compute_capability,
    )


def versions() -> dict[str, str]:
    """Of Python and of what is installed of the packages that speed depends on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # it came another way, as TensorRT does with JetPack, or not at all
            continue
    return found


@dataclass(frozen=True)
class Origin:
    """A record and the file that it was read from."""

    path: Path
    record: Record

    def __str__(self) -> str:
        """Command, device, day and commit of the figures."""
        record = self.record
        commit = record.commit.removesuffix("+")
        words = commit if record.git is None else f"commit {commit}"
        changed = ", with changed files" if record.commit.endswith("+") else ""
        last = "" if record.made_by_commit is None else f"; the last that could make it is {record.made_by_commit[:7]}"
        return f"`{record.command}`: {record.device}; {record.date[:10]}, {words}{changed}{last} (`{self.path.name}`)"

    @contextmanager
    def read_as_expected(self) -> Iterator[None]:
        """Around code that takes a record's details for granted. Raises `DataError` where something is amiss."""
        try:
            yield
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise DataError(
                f"{self.path} lacks what is to be shown of benchmarks.{self.record.benchmark} "
                f"({type(error).__name__}: {error}); measure again with this version of stlm-edge"
            ) from None


def origins(paths: Iterable[Path]) -> list[Origin]:
    """Records in the order of their paths. Raises `DataError` if one cannot be read, or if there is none."""
    found = [Origin(path, read(path)) for path in paths]
    if not found:
        raise DataError("no records were given, expected the JSON of benchmarks such as benchmarks/results/*.json")
    return found
