"""The page's server: what it answers, and what it refuses."""

from __future__ import annotations

import base64
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from runtime.review.__main__ import main
from runtime.review.app import MOST_BYTES, make_app
from runtime.review.review import Review
from runtime.web.options import Serving
from runtime.web.server import WebServer
from tests.runtime.review.conftest import SIZE, keep, write_picture

pytestmark = pytest.mark.heavy

Ask = Callable[..., tuple[int, Any]]
HOSTILE = "<img src=x onerror=alert(1)>.png"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("page")
    for number in range(8):
        keep(root / "kept", number, score=0.1 * number)
    write_picture(root / "kept" / HOSTILE, seed=99)
    return root / "kept", root / "data" / "bottle"


@pytest.fixture(scope="module")
def review(folders: tuple[Path, Path]) -> Iterator[Review]:
    with Review(*folders, test_share=0, labelme=False) as review:
        yield review


@pytest.fixture(scope="module")
def ask(review: Review) -> Iterator[Ask]:
    """Gets, or posts what is given as JSON; status and body, as JSON if it is any."""
    with WebServer(
        make_app(review, reviewer="Ann"), Serving("127.0.0.1:0"), what="review", most_bytes=MOST_BYTES
    ) as server:

        def request(path: str, body: object = None, **headers: str) -> tuple[int, Any]:
            data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            wanted = urllib.request.Request(server.url.rstrip("/") + path, data, headers)
            try:
                with urllib.request.urlopen(wanted, timeout=60) as answer:
                    status, content = answer.status, answer.read()
            except urllib.error.HTTPError as error:
                with error:
                    status, content = error.code, error.read()
            try:
                return status, json.loads(content)
            except ValueError:
                return status, content

        yield request


def deciding(item: dict[str, Any], **more: object) -> dict[str, object]:
    return {"session": "s", "number": item["number"], "sha256": item["sha256"], "call": "good", "reviewer": "Ann",
            "kind": "", "mask": "", "replaces": None, **more}  # fmt: skip


def test_a_picture_is_taken_decided_and_taken_back(ask: Ask, folders: tuple[Path, Path]):
    status, taken = ask("/api/take", {"session": "s", "count": 2})
    assert (status, len(taken["items"])) == (200, 2)
    item = taken["items"][0]
    assert (item["size"], item["verdict"], item["threshold"]) == (list(SIZE), "good", 0.5)
    for path, shape in (("picture", (*SIZE, 3)), ("heat", (12, 16, 4)), ("region", (*SIZE, 4))):
        _, content = ask(f"/{path}/{item['number']}?level=0.5")
        assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED).shape == shape
    region = base64.b64encode(content).decode()
    status, made = ask("/api/decide", deciding(item, call="defect", kind="dent", mask=region))
    assert (status, made["decision"]["has_mask"], made["kinds"]) == (200, True, ["dent"])
    mask = cv2.imread(str(folders[1] / f"ground_truth/dent/{Path(item['name']).stem}_mask.png"), cv2.IMREAD_UNCHANGED)
    rows, columns = np.nonzero(mask)
    assert (mask.shape, set(np.unique(mask))) == (SIZE, {0, 255})
    assert (abs(rows.mean() - 17.5) < 1, abs(columns.mean() - 23.5) < 1) == (True, True)  # cells 3 to 5 and 4 to 7
    status, refused = ask("/api/decide", deciding(item, reviewer="Bo"))
    assert (status, refused["decision"]["reviewer"]) == (409, "Ann")
    status, undone = ask("/api/undo", {"session": "s", "reviewer": "Ann"})
    assert (status, undone["item"]["number"]) == (200, item["number"])
    assert ask("/api/undo", {"session": "s", "reviewer": "Ann"})[0] == 409
    assert ask("/api/list?which=open")[1]["total"] == 9
    assert ask("/api/threshold")[1]["good"] == []


def test_what_makes_no_sense_is_refused_in_one_line(ask: Ask, folders: tuple[Path, Path]):
    item = ask("/api/item/7")[1]["item"]
    wrong = [
        *(
            (body, 400)
            for body in (b"{", b"[]", b"\xff\0", {}, deciding(item, number="7"), deciding(item, call="undo"))
        ),
        *((deciding(item, **more), 400) for more in ({"reviewer": ""}, {"call": "defect", "kind": "../../x"})),
        *((deciding(item, **more), 404) for more in ({"number": 10**6}, {"number": -1}, {"sha256": "0"})),
        *((deciding(item, call="defect", kind="x", mask=mask), 404) for mask in ("%", "AAAA")),
        (deciding(item, replaces=77), 409),
    ]
    for body, status in wrong:
        found, answer = ask("/api/decide", body)
        assert (found, "\n" in answer["error"], "_Decide" in answer["error"]) == (status, False, False), body
    for path in ("/picture/99", "/heat/99", "/api/item/99"):
        assert ask(path)[0] == 404
    for path in ("/picture/../../etc/passwd", "/picture/..%2f..%2fetc%2fpasswd", "/static/..%2fapp.py", "/picture/x"):
        assert ask(path)[0] == 404
    assert ask("/region/7?level=x")[0] == 400
    assert ask("/region/7?level=nan")[0] == 200
    assert ask("/api/decide", deciding(item), Origin="http://evil.example")[0] == 403
    assert ask("/api/list?which=<b>")[0] == 200
    assert not folders[1].joinpath("test/x").exists()


def test_markup_in_names_is_text(ask: Ask):
    assert HOSTILE.encode() not in ask("/")[1]
    assert ask("/api/list?which=all")[1]["entries"][-1]["name"] == HOSTILE


def test_wrong_places_end_the_program_in_one_line(
    folders: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    kept = write_picture(tmp_path / "kept" / "x.png", seed=0).parent
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for arguments, words in (
            ([tmp_path / "nowhere"], "is no folder"),
            ([kept, "--reviewer", " "], "reviewer's name"),
            ([kept, "--serve", f"127.0.0.1:{taken.getsockname()[1]}"], "end the program that has the port"),
        ):
            code = main([*map(str, arguments), "--into", str(tmp_path / "data" / "x")])
            said = capfd.readouterr().err
            assert (code, words in said, said.count("\n")) == (1, True, 1), said
