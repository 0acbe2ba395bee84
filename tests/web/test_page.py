"""The live page over HTTP: what it is told, what it shows, and that it asks nobody else."""

from __future__ import annotations

import json
import re
import urllib.request

import pytest

from splitinfer.errors import InputError, MissingExtraError
from splitinfer.runtime.events import (
    BatchReleased,
    DeviceLost,
    DeviceReturned,
    DidAlone,
    Inferred,
    PeriodEnded,
    Refused,
    Repeated,
    Started,
    TailServed,
    TaskDone,
)
from splitinfer.web import server
from splitinfer.web.server import WebPage
from splitinfer.web.state import FEWEST_PERIODS, LATENCIES_KEPT, PERIODS_KEPT, LiveState

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

START = Started(
    "busy", "price", 0, 1000, 0.01, 1.0, 0.0, [["resnet50", "mobilenet_v2"], ["resnet50"]], [[54, 53], [54]]
)


def period(number):
    rows = [[[1.0 * number, 2.0], [3.0, 0.0]]] * 3
    return PeriodEnded(
        10 * number, 10, [[0, 53], [54, 0]], rows, rows, [0.1, 0.2], [1e6, 1e6], [1e-3, 2e-3], [1e-3, 0.0]
    )


@pytest.fixture
def page():
    page = WebPage()
    yield page
    page.close()


def get(page, path):
    with urllib.request.urlopen(page.address + path, timeout=10) as answer:
        return answer.read().decode(), dict(answer.headers)


def test_the_page_asks_nobody_else(page):
    text, headers = get(page, "")
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy == {"default-src": "'none'"} | dict.fromkeys(("script-src", "style-src", "connect-src"), "'self'")
    own = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert set(own) == {"uplot.css", "page.css", "uplot.js", "page.js"}
    assert not re.findall(r"<style|style=|<script>|onclick", text), "the policy lets nothing run that the page holds"
    for name in own:
        text, headers = get(page, name)
        assert headers["content-type"].startswith("text/css" if name.endswith("css") else "text/javascript")
        assert not re.findall(r"https?://(?!github.com/leeoniya/uPlot)|@import|url\(", text)


def test_a_run_is_followed(page):
    page.add(START)
    page.add(period(0))
    for slots in (3, 5, 40):
        page.add(TaskDone(0, 1, 53, 0, slots - 1))
    state = json.loads(get(page, "state")[0])
    assert state["run"]["services"] == START.services
    assert [one["time_s"] for one in state["periods"]] == [pytest.approx(0.1)]
    assert state["periods"][0]["energy_j"] == pytest.approx([0.02, 0.02])
    assert state["services"]["0/1"]["done"] == 3
    assert state["services"]["0/1"]["p50_s"] == pytest.approx(0.05)
    assert (state["services"]["1/0"]["done"], state["services"]["1/0"]["p95_s"]) == (0, None)
    page.add(period(1))
    news = json.loads(get(page, f"state?since={state['seen']}")[0])
    assert (news["reset"], len(news["periods"]), news["services"]) == (False, 1, {}), "no service has news"
    assert json.loads(get(page, "state?since=abc:1")[0])["reset"], "a page from before a restart begins anew"
    page.add(START)
    news = json.loads(get(page, f"state?since={news['seen']}")[0])
    assert news["reset"], "so does one that saw something before the run began"
    assert (news["run"]["policy"], news["periods"]) == ("price", [])
    assert json.loads(get(page, "state?since=rubbish")[0])["reset"]


def test_events_are_pushed(page):
    page.add(START)
    with urllib.request.urlopen(page.address + "events", timeout=10) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = [stream.readline().decode() for _ in range(3)]
        first = json.loads(lines[1].removeprefix("data: "))
        assert first["run"]["policy"] == "price"
        page.add(period(0))
        second = json.loads([stream.readline().decode() for _ in range(3)][1].removeprefix("data: "))
    assert (second["reset"], len(second["periods"])) == (False, 1)


def test_what_a_service_did_beside_its_tasks(page):
    page.add(START)
    for batch in (0, 1, 4):  # of a task without a tail nobody knows a batch
        page.add(TaskDone(0, 1, 53, 0, 4, batch))
    page.add(DeviceLost(0, 60, 2, "its connection ended"))
    page.add(DeviceReturned(0, 70))
    page.add(DidAlone(0, 70, 3, [0, 5]))
    page.add(DidAlone(0, 71, 0, [0, 1]))
    page.add(BatchReleased("resnet50", 3, 4, 0.001, "queued", 1))
    state = json.loads(get(page, "state")[0])
    assert state["services"]["0/1"]["batch"] == 2.5
    assert state["services"]["0/0"]["batch"] is None
    assert (state["lost"], state["rejoined"], state["retries"]) == ({}, {"0": 1}, {"0": 3})
    assert (state["services"]["0/0"]["counts"], state["services"]["0/1"]["counts"]) == ({}, {"fallbacks": 6})
    assert state["models"]["resnet50"]["sizes"] == {"4": 1}


def test_an_edge_server_is_followed_model_by_model(page):
    page.add(TailServed("resnet18", 3, 1000, 40, 0.001, 0.004, batch=4))
    page.add(BatchReleased("resnet18", 3, 4, 0.001, "queued", 1))
    page.add(Refused("INVALID_ARGUMENT", "no", model="resnet18"))
    page.add(Refused("NOT_FOUND", "no such model"))
    page.add(Repeated("resnet18", 3))
    page.add(Inferred("resnet18", 3, "device", 2))
    page.add(TailServed("vit_b_16", 3, 1000, 40, 0.001, 0.004))
    state = json.loads(get(page, "state")[0])
    resnet = state["models"]["resnet18"]
    assert resnet["p95_s"] == pytest.approx(0.005)
    assert (resnet["done"], resnet["batch"], resnet["sizes"]) == (1, 4.0, {"4": 1})
    assert resnet["counts"] == {"dropped": 1, "refused": 1, "repeated": 1, "retries": 2, "fallbacks": 1}
    assert state["models"]["vit_b_16"]["counts"] == {}
    assert state["refused"] == {"NOT_FOUND": 1}


def test_what_is_kept_is_bounded_and_reaches_back_to_the_start():
    state = LiveState()
    state.add(START)
    for number in range(2 * PERIODS_KEPT):
        state.add(period(number))
    for slot in range(LATENCIES_KEPT + 50):
        state.add(TaskDone(1, 0, 54, slot, slot))
    news = state.since("")
    times = [one["slots"] for one in news["periods"]]
    assert len(times) <= PERIODS_KEPT
    assert times == sorted(times)
    assert times[0] == 10
    assert times[-PERIODS_KEPT // 2 :] == [10 * (n + 1) for n in range(2 * PERIODS_KEPT)][-PERIODS_KEPT // 2 :]
    assert news["services"]["1/0"]["done"] == LATENCIES_KEPT + 50
    state.add(START)
    assert state.since("")["periods"] == [], "another run begins on an empty page"
    many = LiveState()
    many.add(Started("crowd", "price", 0, 9, 0.01, 1.0, 0.0, [["a"] * 4] * 64, [[9] * 4] * 64))
    rows = [[[1.23456789e6] * 4] * 64] * 3
    for number in range(2 * FEWEST_PERIODS):
        many.add(PeriodEnded(10 * number, 10, [[0] * 4] * 64, rows, rows, *[[0.1] * 64] * 4))
    assert len(text := json.dumps(many.since(""))) < 25_000 * FEWEST_PERIODS
    assert "1235000.0" in text
    assert "12345" not in text


def test_a_taken_port_and_absent_packages_are_one_line(page, monkeypatch):
    port = int(page.address.rstrip("/").rpartition(":")[2])
    with pytest.raises(InputError, match=rf"--web-port: cannot listen on 127.0.0.1:{port}"):
        WebPage(port=port)
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"splitinfer\[web\]"):
        WebPage()
