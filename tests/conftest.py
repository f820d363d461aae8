"""Fixtures that several folders of tests share."""

from __future__ import annotations

import http.server
import json
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
    """

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str | None] = field(default_factory=list)
    stop_after: int | None = None
    ranges: bool = True


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
            self.send_header("Content-Length", str(len(content) - start))
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
