"""The live page in a browser: the picture that belongs to the verdict, keys, windows, and a line that is gone."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from ..sinks.conftest import inspection
from ..sinks.fake_line import part
from .conftest import Shown
from .test_page import Drawn

api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
PATIENCE_MS = 30_000
"""Machines are shared."""

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]


def test_newest_picture_one_part_for_a_key_two_windows_and_a_line_that_is_gone(shown: Shown) -> None:
    watch, line = shown.watches["left"], shown.lines["left"]
    watch.write(inspection(0, picture=Drawn()))  # before anybody looks, and no other one comes
    watch.write_part(part(0, verdict="reject"))
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context: Any = browser.new_context()
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.goto(shown.server.url)
        page.wait_for_function("() => document.querySelector('.picture img')?.naturalWidth > 0")
        camera = page.locator(".camera").first
        camera.get_by_text("judging").wait_for()
        button = camera.get_by_role("button", name="Trigger")
        button.focus()
        for _ in range(5):  # held down
            page.keyboard.down("Enter")
        page.keyboard.up("Enter")
        camera.get_by_text("part 0 was begun").wait_for()
        assert line.triggered == [None]
        second = context.new_page()  # both would hold all connections of the browser
        second.goto(shown.server.url)
        second.get_by_role("button", name="Trigger").click()
        second.get_by_text("part 1 was begun").wait_for()
        second.close()
        camera.get_by_role("button", name="Pause").click()
        camera.get_by_text("picture of").wait_for()
        shown.server.close()
        camera.get_by_text("not known").wait_for()
        browser.close()
