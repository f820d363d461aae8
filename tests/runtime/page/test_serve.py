"""`stlm camera --serve`, from the command to the page in a real browser."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from runtime.camera import main

from ..sinks.waiting import eventually, free_port
from .conftest import MARKUP

pytestmark = pytest.mark.heavy

SOON_S = 60.0
LINE = """
engine: {engine}
serve: 127.0.0.1:{port}
recipe: plate
recipes:
  plate: {{number: 1, unclear: 0.88:0.93}}
  "<b>disc</b>": {{number: 2, threshold: 0.9}}
cameras:
  left: {{source: "test://?fps=10&defect-rate=0.2&size=120x160", part-frames: 2, output: {folder}/left.jsonl}}
  "{markup}": {{source: "test://?size=120x160", trigger: software}}
"""


def last_line(capfd: pytest.CaptureFixture[str]) -> str:
    return capfd.readouterr().err.splitlines()[-1]


def test_what_cannot_be_served_is_one_line_before_an_engine_is_opened(
    engine: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    line = ["--engine", str(engine), "--source", "test://?frames=1"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main([*line, "--serve", place]) == 1
        told = capfd.readouterr().err
        assert "(Address already in use); end the program that has the port" in told and "runs on" not in told
    assert main([*line, "--serve", "127.0.0.1:0", "--serve-cert", str(tmp_path / "none.pem")]) == 1
    assert "none.pem cannot be read (No such file or directory), expected a file in PEM" in last_line(capfd)
    assert main([*line, "--serve", "8080"]) == 1
    assert "found '8080' to serve on, expected ADDRESS:PORT" in last_line(capfd)
    assert main([*line, "--serve-token", "x"]) == 1
    assert "found serve-token without serve, expected both" in last_line(capfd)
    for name in [each for each in sys.modules if each.startswith("runtime.page")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette", None)
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    assert main([*line, "--serve", "127.0.0.1:0"]) == 1
    assert last_line(capfd).endswith("expected it for this command; pip install 'stlm-edge[page]'")


def test_line_that_ends_takes_its_page_along(engine: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--engine", str(engine), "--source", "test://?frames=5&size=64x128", "--serve", "127.0.0.1:0"]) == 0
    told = capfd.readouterr()
    assert "frames inspected   5" in told.out
    port = re.search(r"page: http://127.0.0.1:(\d+)/", told.err)
    assert port is not None
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(port[1])), 1)


@pytest.fixture
def running(engine: Path, tmp_path: Path) -> Iterator[int]:
    """A line of two cameras as a program; its port."""
    port, file = free_port(), tmp_path / "line.yaml"
    file.write_text(LINE.format(engine=engine, port=port, folder=tmp_path, markup=MARKUP))
    command = [sys.executable, "-m", "runtime.camera", "--config", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as program:
        try:
            eventually(lambda: healthy(port) or program.poll() is not None, within_s=SOON_S)
            assert program.poll() is None, program.stdout and program.stdout.read()
            yield port
            program.send_signal(signal.SIGINT)
            said, _ = program.communicate(timeout=SOON_S)
            assert program.returncode == 0, said
            assert "Traceback" not in said
        finally:
            program.kill()


def healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SOON_S)
    try:
        connection.request("GET", "/healthz")
        with connection.getresponse() as answer:
            return answer.status == 200
    except OSError:
        return False
    finally:
        connection.close()


def trigger_by_a_key_that_is_held(page: Any, camera: Any) -> None:
    """One part, whose picture is shown though no other follows; a line that is lost meanwhile is said to be."""
    camera.get_by_role("button", name="Trigger").focus()
    for _ in range(3):
        page.keyboard.down("Enter")
    page.keyboard.up("Enter")
    camera.locator(".said", has_text="part 0 was begun").wait_for()
    camera.locator(".strip li").first.wait_for()
    shown = "document.querySelectorAll('.picture img')[1].naturalWidth"
    eventually(lambda: page.evaluate(shown), within_s=SOON_S)
    page.evaluate("source.onerror()")
    camera.get_by_text("not known").wait_for()
    camera.get_by_text("judging").wait_for()


def trigger_in_a_second_window(context: Any, page: Any) -> None:
    """Two windows would hold all connections that a browser has to the line."""
    second = context.new_page()
    second.goto(page.url)
    second.get_by_role("button", name="Trigger").click()
    second.locator(".said", has_text="part 1 was begun").wait_for()
    second.close()


def test_browser_shows_the_line_and_asks_it_for_things(running: int, tmp_path: Path) -> None:
    api = pytest.importorskip("playwright.sync_api")
    browser_path = shutil.which("chromium")
    if browser_path is None:
        pytest.skip("chromium is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
        context.set_default_timeout(SOON_S * 1000)
        page = context.new_page()
        wrong: list[str] = []
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.on("request", lambda asked: None if f"127.0.0.1:{running}/" in asked.url else wrong.append(asked.url))
        page.goto(f"http://127.0.0.1:{running}/")
        left, other = page.locator(".camera").nth(0), page.locator(".camera").nth(1)
        assert other.locator("h2").inner_text() == MARKUP
        left.locator(".strip li").first.wait_for()
        eventually(lambda: page.evaluate("document.querySelector('.picture img').naturalWidth"), within_s=SOON_S)

        # By the keyboard alone: trigger a part of the second camera, then another recipe of the first one.
        trigger_by_a_key_that_is_held(page, other)
        trigger_in_a_second_window(context, page)
        left.get_by_label("Recipe").select_option("<b>disc</b>")
        left.get_by_role("button", name="Change recipe").press("Enter")
        left.locator(".log", has_text="recipe <b>disc</b> (2) judges from the next part on").wait_for()
        left.locator(".newest", has_text="recipe <b>disc</b>").wait_for()

        pause = left.get_by_role("button", name="Pause")
        pause.press("Space")
        assert pause.get_attribute("aria-pressed") == "true"
        picture, parts = left.locator("img"), left.locator(".newest").inner_text()
        left.get_by_text("picture of").wait_for()
        eventually(lambda: "/stream?" not in str(picture.get_attribute("src")), within_s=SOON_S)
        eventually(lambda: left.locator(".newest").inner_text() != parts, within_s=SOON_S)
        pause.press("Space")
        eventually(lambda: "/stream?" in str(picture.get_attribute("src")), within_s=SOON_S)

        with page.expect_download() as download:
            left.get_by_role("link", name="Last events as CSV").click()
        download.value.save_as(tmp_path / "events.csv")
        assert (tmp_path / "events.csv").read_text().startswith("camera,time,event,part,part_id,verdict")
        for width in (390, 1280, 1920):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        assert wrong == []
        browser.close()


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus (apt: prometheus)")
def test_prometheus_scrapes_the_line(running: int, tmp_path: Path) -> None:
    port, config = free_port(), tmp_path / "prometheus.yml"
    job = f"{{job_name: stlm, scrape_interval: 1s, static_configs: [{{targets: ['127.0.0.1:{running}']}}]}}"
    config.write_text(f"scrape_configs: [{job}]")
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'series'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as program:
        try:
            asked = quote('stlm_parts_total{camera="left",verdict="good"} > 0')
            eventually(lambda: found(port, f"/api/v1/query?query={asked}"), within_s=SOON_S)
            (metadata,) = found(port, "/api/v1/metadata?metric=stlm_latency_seconds")["stlm_latency_seconds"]
            assert metadata["type"] == "histogram"
        finally:
            program.terminate()


def found(port: int, path: str) -> Any:
    """What Prometheus knows; nothing while it starts."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        try:
            connection.request("GET", path)
            data = json.loads(connection.getresponse().read())["data"]
        except (OSError, ValueError):
            return None
        return data.get("result", data)
