"""What all tests share: a guard of the quick tier, artefacts made once a session, golden fixtures, a file server.

A test is `heavy` if it traces or compiles a network, starts a process, opens a socket or computes for seconds, `slow`
if only `make all-tests` waits for it. `make quick` runs what is neither; `make test` leaves out what is slow. A test is
`alone` if it compares times, so that pytest-xdist's other worker runs nothing meanwhile.
"""

from __future__ import annotations

import dataclasses
import fcntl
import http.server
import json
import os
import shutil
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stlm_edge.plate.part import write_dataset
from tests.settings import TWO_STREAMS

NOT_QUICK = ("heavy", "slow", "gpu")

HEAVY_FIXTURES = frozenset(
    {"trained_run", "traced_engine", "file_server", "camera_server", "standing_server", "two_sizes", "rtsp_server"}
    | {"gige", "small_disk", "mounted", "driver", "screen", "batched", "stacked", "sums", "build_once", "build_log"}
)
"""Whoever asks for one of these is heavy by it, also where another test has made it before."""

OUTSIDE = {
    "subprocess.Popen": "starts a process",
    "os.fork": "starts a process",
    "os.forkpty": "starts a process",
    "os.posix_spawn": "starts a process",
    "os.system": "starts a process",
    "socket.__new__": "opens a socket",
}
"""Events of Python's audit, which see what imported names and libraries do as well."""

COMPILERS = {
    "multiprocessing.util": ("spawnv_passfds", "starts a process"),
    "tensorrt_rtx": ("Builder.build_serialized_network", "compiles a network"),
    "torch": ("export.export", "traces a network"),
}
"""What no audit sees: wrapped where a module of the tests has loaded it."""

quick_test: list[str] = []
"""The test of the quick tier that runs now, its fixtures included."""


def refuse(what: str) -> None:
    """End the running test if it belongs to the quick tier; no `except` of the tested code can swallow that."""
    if quick_test:
        name = quick_test.pop()
        pytest.fail(f"{name} {what}; mark it @pytest.mark.heavy, the quick tier does none of that", pytrace=False)


def audit(event: str, details: Any, outside: dict[str, str] = OUTSIDE) -> None:
    if event in outside:  # a default, since Python audits its own end too, when the names of modules are gone
        if event == "subprocess.Popen" and details[0] == "fc-list":
            return  # matplotlib, which looks for fonts once
        refuse(outside[event])


def pytest_configure() -> None:
    sys.addaudithook(audit)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HEAVY_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("heavy")


def pytest_collection_finish() -> None:
    for module, (path, what) in COMPILERS.items():
        if module not in sys.modules:
            continue
        *parents, name = path.split(".")
        owner = attrgetter(".".join(parents))(sys.modules[module]) if parents else sys.modules[module]
        setattr(owner, name, refusing(getattr(owner, name), what))


def refusing(function: Callable[..., Any], what: str) -> Callable[..., Any]:
    @wraps(function)
    def guarded(*arguments: Any, **options: Any) -> Any:
        refuse(what)
        return function(*arguments, **options)

    return guarded


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    if not any(item.get_closest_marker(name) for name in NOT_QUICK):
        quick_test.append(item.name)
    try:
        with beside_others(alone=item.get_closest_marker("alone") is not None):
            return (yield)
    finally:
        quick_test.clear()


@contextmanager
def beside_others(*, alone: bool) -> Iterator[None]:
    """Let a test that compares times wait until no other worker process runs one, and the others wait for it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    with lock_file("running", os.getppid()).open("w") as running:
        # Whoever waits to be alone holds the door, or the others would slip in before it for ever.
        with lock_file("door", os.getppid()).open("w") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(running, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def lock_file(name: str, parent: int) -> Path:
    """Of the worker processes of one parent."""
    return Path(tempfile.gettempdir()) / f"stlm-tests-{parent}.{name}"


def pytest_unconfigure() -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        for name in ("running", "door"):
            lock_file(name, os.getpid()).unlink(missing_ok=True)


MakeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """Has a folder filled once for all worker processes of a run; the others wait for the one that came first."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder = root / name
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                beside = root / f"{name}.partial"
                shutil.rmtree(beside, ignore_errors=True)  # of a worker that failed
                beside.mkdir()
                fill(beside)
                beside.rename(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def plate(make_once: MakeOnce) -> Path:
    """`plate` with 6 good training pictures, 2 good and 4 defective test pictures; returns the folder above it."""
    drawn = {"train": 6, "test_good": 2, "test_defective_per_kind": 1, "size": (96, 96), "seed": 0}
    return make_once("drawn", lambda folder: write_dataset(folder, category="plate", **drawn))


@pytest.fixture(scope="session")
def trained_run(make_once: MakeOnce, plate: Path) -> Path:
    """The run of the `cpu` preset, one epoch at 64 x 64 on `plate`; not to be changed: copy what you change."""
    from train.__main__ import main

    small = ["--preset", TWO_STREAMS, "--image-size", "64", "--epochs", "1", "--batch-size", "2"]

    def fit(folder: Path) -> None:
        assert main(["fit", "--data", str(plate), "--category", "plate", "-o", str(folder), *small]) == 0

    return make_once("trained", fit)


@pytest.fixture(scope="session")
def small_checkpoint(make_once: MakeOnce) -> Path:
    """The demo's trained network for an input of 64 x 96."""
    import train
    from stlm_edge.network.checkpoint import Checkpoint, load, save

    def write(folder: Path) -> None:
        loaded = load(Path(train.__file__).parent / "pretrained/plate/model.safetensors")
        spec = dataclasses.replace(loaded.spec, input_size=(64, 96), map_size=(64, 96))
        save(folder / "small.safetensors", Checkpoint(loaded.network, spec, {}))

    return make_once("checkpoint", write) / "small.safetensors"


@pytest.fixture(scope="session")
def traced_engine(make_once: MakeOnce, small_checkpoint: Path, plate: Path) -> Path:
    """`small_checkpoint` as a verified .onnx engine beside its sidecar; not to be changed: copy what you change."""
    from export.__main__ import main

    def export(folder: Path) -> None:
        engine = folder / "small.onnx"
        assert main(["onnx", str(small_checkpoint), "-o", str(engine), "--data", str(plate / "plate")]) == 0

    return make_once("traced", export) / "small.onnx"


GOLDEN = Path(__file__).parent / "golden"

FormulaWeights = Callable[[str, str], dict[str, np.ndarray]]


@pytest.fixture(scope="session")
def expected() -> dict[str, Any]:
    """All scalar expectations of the golden fixtures."""
    return json.loads((GOLDEN / "expected.json").read_text())


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """Loads one fixture file by name."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz") as file:
            return dict(file)

    return load


@pytest.fixture(scope="session")
def formula_weights() -> FormulaWeights:
    """Makes the tensors of one group of `weights.json` by its formula, with a prefix."""
    groups = json.loads((GOLDEN / "weights.json").read_text())

    def make(group: str, prefix: str) -> dict[str, np.ndarray]:
        tensors = {}
        for entry in groups[group]:
            seed = zlib.crc32((prefix + entry["name"]).encode())
            uniform = np.random.Generator(np.random.PCG64(seed)).random(int(np.prod(entry["shape"])))
            tensors[entry["name"]] = (entry["offset"] + entry["amplitude"] * (2 * uniform - 1)).reshape(entry["shape"])
        return tensors

    return make


@dataclass
class FileServer:
    """What a local HTTP server offers, and the ranges it was asked for.

    Attributes:
        address: of the server, without a path.
        files: content by path, such as `/weights.bin`.
        asked: the `Range` header of each request, None where there was none.
        stop_after: bytes of an answer after which the connection is cut, None for never.
        ranges: whether ranges are served, or always the whole file.
        says_length: whether an answer begins with how long it is.
        content_range: what an answer says of its place in the whole.
    """

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str | None] = field(default_factory=list)
    stop_after: int | None = None
    ranges: bool = True
    says_length: bool = True
    content_range: str = ""


@pytest.fixture
def file_server() -> Iterator[FileServer]:
    """A server of files on this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            offered.asked.append(wanted)
            content = offered.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and offered.ranges else 0
            if start and start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if offered.says_length:
                self.send_header("Content-Length", str(len(content) - start))
            if offered.content_range:
                self.send_header("Content-Range", offered.content_range)
            self.end_headers()
            stop = None if offered.stop_after is None else start + offered.stop_after
            self.wfile.write(content[start:stop])

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        offered = FileServer(address=f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield offered
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Fetched weights and teacher features of the tests stay out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
