"""The live page in a real browser: nobody else is asked, a reload and another start of the server are survived."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from splitinfer.runtime.events import BatchReleased, DeviceLost, DeviceReturned, Started, TaskDone
from splitinfer.web.server import WebPage
from tests.web.test_page import START, period

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed"),
    pytest.mark.xdist_group("browser"),
]

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    tab = browser.new_page(viewport={"width": 1400, "height": 900})
    tab.set_default_timeout(30_000)
    tab.asked, tab.faults = [], []
    tab.on("request", lambda request: tab.asked.append(request.url))
    tab.on("pageerror", lambda error: tab.faults.append(str(error)))
    tab.on("console", lambda message: tab.faults.append(message.text) if message.type == "error" else None)
    yield tab
    tab.close()


def test_a_run_is_shown_and_nobody_else_is_asked(tab: Any) -> None:
    page = WebPage()
    page.state.references_j = {"full local": 1.0, "full offload": 0.001}
    try:
        page.add(START)
        for number in range(5):
            page.add(period(number))
        page.add(TaskDone(0, 1, 53, 0, 4))
        page.add(BatchReleased("resnet50", 3, 4, 0.001, "queued", 0))
        tab.goto(page.address)
        rows = tab.locator("#run tbody tr")
        playwright.expect(rows).to_have_count(3)
        playwright.expect(tab.locator("#what")).to_contain_text("busy, policy price, 0.5 of 10 s")
        totals = tab.locator("#totals")
        playwright.expect(totals).to_contain_text("1 tasks")
        playwright.expect(totals).to_contain_text("less than full local")
        playwright.expect(totals).to_contain_text("more than full offload")
        playwright.expect(totals).to_contain_text("batches: 1 of 4 requests")
        assert rows.nth(1).locator("td").nth(2).inner_text() == "53/53"
        drawn = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(v => v)"
        assert all(canvas.evaluate(drawn) for canvas in rows.nth(0).locator("canvas").all())
        page.add(DeviceLost(1, 60, 2, "its connection ended"))
        playwright.expect(rows.nth(2).locator("td").nth(0)).to_have_text("1 lost")
        page.add(DeviceReturned(1, 70))
        playwright.expect(rows.nth(2).locator("td").nth(0)).to_have_text("1")
        tab.select_option("#device", "1")
        assert [row.is_visible() for row in rows.all()] == [False, False, True]
        tab.click("#theme")
        tab.reload()
        playwright.expect(rows).to_have_count(3)
        tab.click("#pause")
        page.add(period(7))
        tab.wait_for_timeout(1500)
        assert "0.5 of 10 s" in tab.inner_text("#what"), "a page that pauses stands still"
        tab.click("#pause")
        playwright.expect(tab.locator("#what")).to_contain_text("0.8 of 10 s")
        assert tab.faults == []
        assert all(url.startswith(page.address) for url in tab.asked), tab.asked
    finally:
        page.close()


def test_another_start_of_the_server_is_survived(tab: Any) -> None:
    page = WebPage()
    port = int(page.address.rstrip("/").rpartition(":")[2])
    page.add(START)
    page.add(period(0))
    tab.goto(page.address)
    playwright.expect(tab.locator("#run tbody tr")).to_have_count(3)
    page.close()
    playwright.expect(tab.locator("#what")).to_contain_text("trying again")
    page = WebPage(port=port)
    try:
        page.add(Started("xr", "lyappo", 0, 500, 0.01, 1.0, 0.0, [["resnet18"]], [[20]]))
        for _ in range(4):  # more events than the page had seen of the other start
            page.add(TaskDone(0, 0, 20, 0, 4))
        playwright.expect(tab.locator("#what")).to_contain_text("xr, policy lyappo")
        playwright.expect(tab.locator("#run tbody tr")).to_have_count(1)
    finally:
        page.close()


def test_many_devices_stay_readable(tab: Any) -> None:
    page = WebPage()
    try:
        page.add(Started("crowd", "price", 0, 100, 0.01, 1.0, 0.0, [["a", "b", "c", "d"]] * 64, [[9, 9, 9, 9]] * 64))
        tab.goto(page.address)
        playwright.expect(tab.locator("#run tbody tr")).to_have_count(256)
        width, shown = tab.evaluate("() => [document.documentElement.scrollWidth, innerWidth]")
        assert width <= shown, "nothing sticks out to the side"
        head = tab.locator("#run thead th").first
        tab.evaluate("() => scrollTo(0, 5000)")
        assert head.bounding_box()["y"] < 150, "the table's head stays in sight"
    finally:
        page.close()
