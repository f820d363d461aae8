"""A grid as tasks of Ray: on a cluster that is there, or on one of this machine that lasts as long as the grid."""

from __future__ import annotations

import dataclasses
import io
import logging
import os
import platform
import re
import shutil
import socket
import time
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from stlm_edge.datasets import load_category
from stlm_edge.errors import ConfigError, DataError, OutputError, StlmError, TrainingError, shortly
from stlm_edge.files import cache_folder, locked, make_folder, write_bytes, write_text
from stlm_edge.revision import version
from train.fit import STATE_NAME
from train.paper.execution import LOG_NAME, TICK_S, Update, compute_alone
from train.paper.grid import Run
from train.pseudo_anomalies.textures import texture_source
from train.record import Pictures, weights_files
from train.run_told import EVALUATION_NAME

logger = logging.getLogger(__name__)

LOCAL = "auto"
GRID_NAME = ".grid"
"""In the grid's folder: a word that tells whether a node sees that folder, and names its own folder where not."""
RETRIES = 3
"""How often a run is begun again whose node or process died; one that kills each of its processes has to end."""
LOCK_WAIT_S = 60.0
"""For the processes of a node that died to give back a run's folder; they need seconds."""
SMALL_STORE_BYTES = 100 << 20
"""Ray's memory for results on a cluster of our own, where all nodes see the grid's folder and results are files."""


@dataclass(frozen=True)
class Errand:
    """What each node is told.

    Attributes:
        folder: the current one, from which relative paths start.
        output: of the grid.
        word: see `GRID_NAME`.
    """

    data: Path
    textures: Path | None
    folder: Path
    output: Path
    word: str

    def is_shared(self) -> bool:
        """Whether this node sees the grid's folder."""
        with suppress(OSError):
            os.chdir(self.folder)
        with suppress(OSError):
            return (self.output / GRID_NAME).read_text() == self.word
        return False


@dataclass(frozen=True)
class Sight:
    """What a node has.

    Attributes:
        versions: of what must be the same everywhere.
        pictures: category → its good ones.
        fault: what is missing, for people; empty if nothing is.
    """

    versions: dict[str, str]
    pictures: dict[str, Pictures] = field(default_factory=dict)
    fault: str = ""


@dataclass(frozen=True)
class Result:
    """What a task gives back.

    Attributes:
        files: of the run's folder, where the grid's cannot be seen.
    """

    reason: str
    files: dict[str, bytes]


class Board:
    """An actor that tasks tell where they have begun."""

    def __init__(self) -> None:
        self._begun: list[tuple[int, str]] = []

    def begin(self, number: int, where: str) -> None:
        self._begun.append((number, where))

    def take(self) -> list[tuple[int, str]]:
        """Those since the last time."""
        begun, self._begun = self._begun, []
        return begun


@dataclass(frozen=True)
class OnRay:
    """As tasks of Ray, one for each run; Ray begins those again whose node died.

    Attributes:
        output: the grid's folder. Nodes that do not see it compute in their cache and send the files back.
        address: `auto` for a cluster of this machine that is started and ended here; or `HOST:PORT` of one.
        gpus_per_run: None for one, if there are any.
    """

    data: Path
    textures: Path | None
    output: Path
    address: str = LOCAL
    gpus_per_run: float | None = None

    def run(self, waiting: Sequence[Run]) -> Generator[Update | None]:
        """See `train.paper.execution.Executor`.

        Raises:
            ConfigError: also if there is no such cluster, or no node can do it, or their versions differ.
            DataError: also if a node lacks the data.
            TrainingError: if the cluster ends meanwhile.
        """
        if not waiting:
            return
        with redirect_stdout(_Debug()), _connected(self.address):
            nodes = [node for node in ray.nodes() if node["Alive"]]
            gpus = _gpus(self.gpus_per_run, nodes, wanted=any(run.config.device != "cpu" for run in waiting))
            make_folder(self.output)
            word = self.output / GRID_NAME
            if not word.exists():
                write_text(word, uuid.uuid4().hex)
            errand = Errand(self.data, self.textures, Path.cwd(), self.output, word.read_text())
            _require_same(_sights([node for node in nodes if _can_compute(node, gpus)], errand, waiting))
            try:
                yield from _compute(waiting, errand, gpus)
            except ray.exceptions.RayError as error:
                raise TrainingError(
                    f"Ray has ended while the grid ran ({_said(error)}); the same command goes on from here"
                ) from None


class _Debug(io.TextIOBase):
    """Takes what Ray prints of nodes that die, with pages of their state, among the results otherwise."""

    def write(self, text: str) -> int:
        if text.strip():
            logger.debug("%s", text.strip())
        return len(text)


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Within the block, be part of a cluster; of one that is there nothing is ended."""
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    try:
        if address == LOCAL:
            ray.init(address="local", include_dashboard=False, object_store_memory=SMALL_STORE_BYTES, **options)
        else:
            _require_ray_at(address)
            ray.init(address=address, **options)
    except StlmError:
        raise
    except (Exception, SystemExit) as error:  # Ray ends the program where nobody answers, and raises of all kinds
        raise ConfigError(
            f"Ray cannot be started or reached as {address} ({shortly(error)}); give --ray auto, or HOST:PORT of a "
            "cluster that this machine is part of (ray start)"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _require_ray_at(address: str) -> None:
    """Raises `ConfigError` if nobody at an address speaks Ray's protocol, which Ray itself finds out in minutes."""
    expected = "expected a Ray cluster there; see 'ray start --head', or give --ray auto"
    named = re.fullmatch(r"(?P<host>[^/:\s]+):(?P<port>[0-9]{1,5})", address)
    if named is None:
        raise ConfigError(f"--ray is {address}, expected auto or HOST:PORT of a cluster that this machine is part of")
    try:
        with socket.create_connection((named["host"], int(named["port"])), timeout=5) as connection:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
            answer = connection.recv(9)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"found nobody at {address} ({error}), {expected}") from None
    if answer[3:4] != b"\x04":  # settings, with which HTTP/2 begins (RFC 9113, 3.4), and so gRPC
        raise ConfigError(f"found another server at {address}, {expected}")


def _gpus(wished: float | None, nodes: Sequence[Mapping[str, Any]], *, wanted: bool) -> float:
    """How much of a GPU a run gets. Raises `ConfigError` if no node has that."""
    most = max(node["Resources"].get("GPU", 0.0) for node in nodes)
    gpus = float(wanted and most >= 1) if wished is None else wished
    if gpus > most:
        raise ConfigError(f"--gpus-per-run is {gpus:g}, expected at most {most:g}, which is what a node has; give less")
    if gpus > 1:
        raise ConfigError(f"--gpus-per-run is {gpus:g}, expected at most 1, since a run computes on one; give less")
    if not any(_can_compute(node, gpus) for node in nodes):
        raise ConfigError(f"no node has a CPU and {gpus:g} of a GPU for a run; start Ray with --num-cpus")
    return gpus


def _can_compute(node: Mapping[str, Any], gpus: float) -> bool:
    return bool(node["Resources"].get("CPU", 0) >= 1 and node["Resources"].get("GPU", 0) >= gpus)


def _sights(nodes: Sequence[Mapping[str, Any]], errand: Errand, runs: Sequence[Run]) -> dict[str, Sight]:
    """What each node has, by its name."""
    categories = list(dict.fromkeys(run.category for run in runs))
    files = list(dict.fromkeys(path for run in runs for path in _files(run)))
    asked = {}
    for node in nodes:
        where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        look = ray.remote(_look).options(num_cpus=0, max_retries=0, scheduling_strategy=where)
        asked[f"{node['NodeManagerHostname']} ({node['NodeID'][:8]})"] = look.remote(errand, categories, files)
    found = {}
    for name, answer in asked.items():
        try:
            found[name] = ray.get(answer)
        except ray.exceptions.RayError as error:
            raise ConfigError(
                f"node {name} cannot run this stlm-edge ({_said(error)}); install the same one as here, "
                f"{version()}, in the environment that Ray was started from"
            ) from None
    return found


def _files(run: Run) -> list[Path]:
    """Files that its settings name."""
    groups = [Path(run.config.groups).absolute()] if run.config.groups else []
    return [*weights_files(run.config).values(), *groups]


def _look(errand: Errand, categories: Sequence[str], files: Sequence[Path]) -> Sight:
    """What this node has; runs there."""
    errand.is_shared()
    versions = {"stlm-edge": version(), "Python": platform.python_version(), "torch": metadata.version("torch")}
    try:
        texture_source(errand.textures)
        pictures = {name: Pictures.of(load_category(errand.data, name).train) for name in categories}
    except (StlmError, OSError) as error:
        return Sight(versions, fault=str(error))
    missing = [str(path) for path in files if not path.is_file()]
    return Sight(versions, pictures, fault=f"found no {', '.join(missing)}, which a setting names" if missing else "")


def _require_same(sights: Mapping[str, Sight]) -> None:
    """Raises `ConfigError` if versions differ, `DataError` if data do or are missing."""
    (first, its), *others = sights.items()
    for name, sight in others:
        for what, found in sight.versions.items():
            if found != its.versions[what]:
                raise ConfigError(
                    f"node {name} has {what} {found} and node {first} {its.versions[what]}, expected the same on all; "
                    "install one of them everywhere"
                )
    for name, sight in sights.items():
        if sight.fault:
            raise DataError(f"node {name}: {sight.fault}; every node needs it by the same path")
    for name, sight in others:
        for category, pictures in sight.pictures.items():
            if pictures != its.pictures[category]:
                raise DataError(
                    f"node {name} has {pictures.count} good pictures of {category} and node {first} "
                    f"{its.pictures[category].count} others, expected the same on all; copy them anew"
                )


def _compute(waiting: Sequence[Run], errand: Errand, gpus: float) -> Generator[Update | None]:
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    board = (
        ray.remote(Board).options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here).remote()
    )
    task = ray.remote(_run_here).options(num_cpus=1, num_gpus=gpus, max_retries=RETRIES, scheduling_strategy="SPREAD")
    runs = {task.remote(number, run, errand, board): run for number, run in enumerate(waiting)}
    pending = list(runs)
    try:
        while pending:
            ready, pending = ray.wait(pending, timeout=TICK_S)
            for number, where in ray.get(board.take.remote()):
                yield Update(waiting[number], "begun", where=where)
            for reference in ready:
                yield _outcome(runs[reference], reference)
            yield None
    finally:
        for insists in (False, True):
            for reference in pending:
                ray.cancel(reference, force=insists)
            with suppress(KeyboardInterrupt):
                ray.wait(pending, num_returns=len(pending)) if pending else None
                break


def _outcome(run: Run, reference: Any) -> Update:
    """Take over what a task has brought back."""
    try:
        result: Result = ray.get(reference)
        for name in sorted(result.files, key=lambda name: name == EVALUATION_NAME):  # which says that all is there
            write_bytes(run.folder / name, result.files[name])
    except ray.exceptions.RayError as error:
        return Update.ended(run, _said(error))
    except OutputError as error:
        return Update.ended(run, str(error))
    return Update.ended(run, result.reason)


def _said(error: Exception) -> str:
    return shortly(getattr(error, "cause", None) or error)


def _run_here(number: int, run: Run, errand: Errand, board: Any) -> Result:
    """Compute a run on this node; a task."""
    gpus = "".join(f", GPU {gpu}" for gpu in ray.get_gpu_ids())
    node = f"{platform.node()} ({ray.get_runtime_context().get_node_id()[:8]})"
    ray.get(board.begin.remote(number, f"{node}{gpus}"))
    is_shared = errand.is_shared()
    folder = run.folder if is_shared else cache_folder() / "grids" / errand.word / Path(*run.folder.parts[-3:])
    _wait_until_free(folder)
    threads = int(os.environ.get("OMP_NUM_THREADS") or 1)  # as Ray has it
    its = dataclasses.replace(run, folder=folder)
    reason = compute_alone(its, data=errand.data, textures=errand.textures, threads=threads)
    if is_shared:
        return Result(reason, {})
    if reason:
        log = folder / LOG_NAME
        return Result(reason, {LOG_NAME: log.read_bytes()} if log.exists() else {})
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != STATE_NAME}
    shutil.rmtree(folder, ignore_errors=True)
    return Result("", files)


def _wait_until_free(folder: Path) -> None:
    """Where the node of an earlier attempt died, its processes may take a moment to do so too."""
    last = time.monotonic() + LOCK_WAIT_S
    while folder.is_dir() and time.monotonic() < last:
        try:
            with locked(folder):
                return
        except OutputError:
            time.sleep(TICK_S)
