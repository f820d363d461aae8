"""A page of two lines that do what they are told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from runtime.camera import command
from runtime.config import read_line
from runtime.line_control import Control
from runtime.page.app import LivePage
from runtime.page.watch import CameraWatch
from runtime.web.options import Serving
from runtime.web.server import WebServer

from ..sinks.fake_line import FakeLine

MARKUP = "<img src=x onerror=alert(1)>"

CONFIG = """
recipes:
  plate: {{number: 1, engine: x.onnx}}
  "<b>disc</b>": {{number: 2, engine: y.onnx}}
cameras:
  left: {{source: "0", trigger: software, output: ["{folder}/left.jsonl", "{folder}/left.csv"]}}
  "{markup}": {{source: "1", part-frames: 2, output: "{folder}/other.jsonl"}}
"""


class _Judge:
    recipe: str | None = None
    drift = None


class ToldLine(FakeLine):
    """Looks like the `Control` of a line with parts."""

    def __init__(self, *, has_parts: bool = True) -> None:
        super().__init__(judges=False)
        self.parts = object() if has_parts else None
        self.judge = _Judge()
        self.has_begun, self.has_ended = True, False


@dataclass
class Shown:
    """A page with its lines by name, and what watches them."""

    page: LivePage
    lines: dict[str, ToldLine]
    watches: dict[str, CameraWatch]

    @property
    def server(self) -> WebServer:
        return self.page._server


@pytest.fixture(scope="module")
def page() -> Iterator[LivePage]:
    with LivePage(Serving("127.0.0.1:0")) as page:
        yield page


@pytest.fixture
def shown(page: LivePage, tmp_path: Path) -> Iterator[Shown]:
    file = tmp_path / "line.yaml"
    file.write_text(CONFIG.format(folder=tmp_path, markup=MARKUP))
    lines: dict[str, ToldLine] = {}
    watches: dict[str, CameraWatch] = {}
    for config in read_line(file, command=command):
        name = str(config.name)
        lines[name] = ToldLine()
        watches[name] = page.watch(config, cast(Control, cast(Any, lines[name])))
    yield Shown(page, lines, watches)
    for name, watch in watches.items():
        watch.close()
        lines[name].end()
