"""The live page in a real browser: nobody else is asked, a reload and another start of the server are survived."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from splitinfer.runtime.events import (
    BatchReleased,
    DeviceLost,
    DeviceReturned,
    DidAlone,
    PeriodEnded,
    Started,
    TaskDone,
)
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


DRAWN = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(v => v)"


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
        rows = tab.locator("#run tbody tr[data-row]")
        playwright.expect(rows).to_have_count(3)
        playwright.expect(tab.locator("#what")).to_contain_text("busy, policy price, 0.5 of 10 s")
        totals = tab.locator("#totals")
        playwright.expect(totals).to_contain_text("1 tasks")
        playwright.expect(totals).to_contain_text("less than full local")
        playwright.expect(totals).to_contain_text("more than full offload")
        playwright.expect(tab.locator("#models tbody tr")).to_contain_text("1 of 4")
        playwright.expect(rows.nth(1).locator(".name-cut")).to_have_text("53/53")
        playwright.expect(rows.nth(0).locator("canvas")).to_have_count(3)
        assert all(canvas.evaluate(DRAWN) for canvas in rows.nth(0).locator("canvas").all())
        legend = rows.nth(0).locator(".u-legend")
        playwright.expect(legend.nth(2)).to_contain_text("power100 mW")
        canvas = rows.nth(0).locator(".u-over").nth(1).bounding_box()
        tab.mouse.move(canvas["x"] + 1, canvas["y"] + 20)  # at the first period, where nothing waits
        playwright.expect(legend.nth(1)).to_contain_text("local0")
        page.add(DeviceLost(1, 60, 2, "its connection ended"))
        playwright.expect(rows.nth(2).locator(".name-device")).to_have_text("1 lost")
        page.add(DeviceReturned(1, 70))
        playwright.expect(rows.nth(2).locator(".name-device")).to_have_text("1")
        page.add(DidAlone(1, 70, 3, [12]))
        for column, text in (("rejoined", "1"), ("retries", "3"), ("fallbacks", "12")):
            playwright.expect(rows.nth(2).locator(f".name-{column}")).to_have_text(text)
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
        playwright.expect(rows.nth(2).locator(".u-legend").nth(1)).to_contain_text("t0.8 s")
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
    playwright.expect(tab.locator("#run tbody tr[data-row]")).to_have_count(3)
    page.close()
    playwright.expect(tab.locator("#what")).to_contain_text("trying again")
    page = WebPage(port=port)
    try:
        page.add(Started("xr", "lyappo", 0, 500, 0.01, 1.0, 0.0, [["resnet18"]], [[20]]))
        for _ in range(4):  # more events than the page had seen of the other start
            page.add(TaskDone(0, 0, 20, 0, 4))
        playwright.expect(tab.locator("#what")).to_contain_text("xr, policy lyappo")
        playwright.expect(tab.locator("#run tbody tr[data-row]")).to_have_count(1)
    finally:
        page.close()


def test_p95_is_held_against_its_target(tab: Any) -> None:
    page = WebPage()
    try:
        start = dataclasses.replace(START, targets_s=[[0.1, 0.04], [0.0]])
        for event in (start, period(0), *[TaskDone(m, n, 0, 0, 4) for m, n in ((0, 0), (0, 1), (1, 0))]):
            page.add(event)
        tab.goto(page.address)
        p95 = tab.locator("#run td.name-p95")
        playwright.expect(p95).to_have_text(["50", "50", "50"])
        assert [re.findall("missed|met", cell.get_attribute("class")) for cell in p95.all()] == [
            ["met"],
            ["missed"],
            [],
        ]
        playwright.expect(tab.locator("#run td.name-target")).to_have_text(["100", "40", ""])
        playwright.expect(tab.locator("#totals")).to_contain_text("1 of 2 services within target")
    finally:
        page.close()


@pytest.mark.parametrize("width", [1400, 1200, 900, 400])
def test_many_devices_stay_readable(tab: Any, width: int) -> None:
    page = WebPage()
    rows = [[[1.0] * 4] * 64] * 3
    try:
        names = ["deeplabv3_mobilenet_v3_large", "efficientnet_b0", "c", "d"]
        crowd = Started("crowd", "price", 0, 100, 0.01, 1.0, 0.0, [names] * 64, [[9, 9, 9, 9]] * 64)
        page.add(dataclasses.replace(crowd, targets_s=[[0.1] * 4] * 64))
        page.add(DeviceReturned(1, 70))
        page.add(DidAlone(1, 70, 345, [1234] * 4))
        for number in range(3):
            page.add(PeriodEnded(10 * number, 10, [[number] * 4] * 64, rows, rows, *[[0.1] * 64] * 4))
        tab.set_viewport_size({"width": width, "height": 900})
        tab.goto(page.address)
        playwright.expect(tab.locator("#run tbody tr[data-row]")).to_have_count(256)
        scroll, shown = tab.evaluate("() => [document.documentElement.scrollWidth, innerWidth]")
        assert scroll <= shown, "nothing sticks out to the side"
        last = tab.locator("tr[data-row='255']")
        assert last.locator("canvas").count() == 0, "what nobody sees is not drawn"
        assert 0 < tab.locator("canvas").count() < 120
        last.scroll_into_view_if_needed()
        playwright.expect(last.locator("canvas")).to_have_count(3)
        playwright.expect(tab.locator("tr[data-row='0'] canvas")).to_have_count(0)
        assert all(canvas.evaluate(DRAWN) for canvas in last.locator("canvas").all())
        if width == 1400:
            head, table_head = (tab.locator(name).first.bounding_box() for name in ("header", "#run th"))
            assert abs(table_head["y"] - head["y"] - head["height"]) < 2, "the table's head stays in sight"
        assert tab.faults == []
    finally:
        page.close()
