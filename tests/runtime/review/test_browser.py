"""The review in a browser: keys, masks, and what stays when the server is gone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from runtime.review.review import Review
from tests.runtime.review.conftest import SIZE, keep, write_picture

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

HOSTILE = "<img src=x onerror=document.title='caught'>.png"
PATIENCE_MS = 30_000
"""Machines are shared."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def served(kept: Path, data_set: Path) -> Iterator[tuple[Review, Any]]:
    from runtime.review.app import MOST_BYTES, make_app
    from runtime.web.options import Serving
    from runtime.web.server import WebServer

    with Review(kept, data_set, test_share=0, labelme=False) as review:
        app = make_app(review, reviewer="Ann")
        with WebServer(app, Serving("127.0.0.1:0"), what="review", most_bytes=MOST_BYTES) as server:
            yield review, server


def open_page(browser: Any, url: str) -> Any:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(PATIENCE_MS)
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.goto(url)
    shows(page, 0)
    return page


def shows(page: Any, number: int) -> None:
    page.wait_for_selector(f"body[data-number='{number}'] .view img.picture")


def counts(page: Any, text: str) -> None:
    api.expect(page.locator("#counts")).to_have_attribute("title", text, timeout=PATIENCE_MS)


def says(page: Any, place: str, text: str) -> None:
    api.expect(page.locator(f"#{place}")).to_contain_text(text, timeout=PATIENCE_MS)


def test_keys_brush_region_undo_and_going_on(browser: Any, kept: Path, data_set: Path):
    write_picture(kept / HOSTILE, seed=50)  # stands last by its name
    with served(kept, data_set) as (review, server):
        page = open_page(browser, server.url)
        page.keyboard.press("g")
        shows(page, 1)
        page.keyboard.press("b")
        box = page.locator(".view").bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.5)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] * 0.5, steps=3)
        page.mouse.up()
        page.keyboard.press("d")
        page.locator("#kind").fill("dent")
        page.keyboard.press("Enter")
        shows(page, 2)
        page.keyboard.press("r")
        page.wait_for_selector(".view canvas")
        page.keyboard.press("d")
        page.keyboard.press("1")
        shows(page, 3)
        page.keyboard.press("s")
        shows(page, 4)
        counts(page, "1 good, 2 defects, 1 skipped")
        page.keyboard.press("u")
        shows(page, 3)
        counts(page, "1 good, 2 defects, 0 skipped")
        page.keyboard.press("ArrowLeft")
        shows(page, 2)
        assert "Decided: defect (dent, with mask), by Ann" in page.locator("#decided").inner_text()
        brushed, region = (
            cv2.imread(str(data_set / next(name for name in each.files if "mask" in name)), cv2.IMREAD_GRAYSCALE) > 0
            for each in review.decisions
            if each.kind == "dent"
        )
        rows, columns = np.nonzero(brushed)
        assert abs(rows.mean() - SIZE[0] / 2) < 2
        assert (columns.min() < SIZE[1] * 0.25, columns.max() > SIZE[1] * 0.75) == (True, True)
        assert (region[17, 23], region[40, 23]) == (True, False)
        page.keyboard.press("l")
        page.locator("#which").select_option("all")
        page.get_by_role("button", name=HOSTILE).click()
        shows(page, 6)
        assert HOSTILE in page.locator("#about").inner_text()
        assert page.title() == "Review"
        page.keyboard.press("t")
        says(page, "evidence", "1 good")
        assert page.faults == []
        page.close()
    with served(kept, data_set) as (_, server):
        page = browser.new_page()
        page.goto(server.url)
        shows(page, 3)
        page.close()


def test_what_is_gone_is_passed_over_and_what_cannot_be_written_is_led_back_to(
    browser: Any, kept: Path, data_set: Path
):
    for number in range(6, 12):
        keep(kept, number, score=0.2)
    with served(kept, data_set) as (review, server):
        page = open_page(browser, server.url)
        page.keyboard.press("g")
        counts(page, "1 good, 0 defects, 0 skipped")
        (kept / review.path(1).name).unlink()
        page.keyboard.press("g")
        says(page, "notice", "nothing was decided of it, and the others go on")
        shows(page, 2)
        other = open_page_of(browser, server.url, "Bo")
        mine = page.evaluate("Number(document.body.dataset.number)")
        assert other.evaluate("Number(document.body.dataset.number)") != mine
        other.close()
        shutil.rmtree(data_set / "train")
        (data_set / "train").write_text("a file in its place")
        page.keyboard.press("g")
        says(page, "notice", "Not saved: cannot write")
        shows(page, 2)
        assert len(review.decisions) == 1
    page.keyboard.press("s")
    says(page, "notice", "does not answer")
    page.close()


def open_page_of(browser: Any, url: str, name: str) -> Any:
    """The page of another reviewer, in a browser of their own, where it shows a picture."""
    page = browser.new_context().new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(url)
    page.wait_for_selector("body[data-number] .view img.picture")
    page.locator("#reviewer").fill(name)
    return page
