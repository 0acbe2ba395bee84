"""The live page over HTTP: what it is told, what it shows, and that it asks nobody else."""

from __future__ import annotations

import json
import re
import urllib.request

import pytest

from splitinfer.errors import InputError, MissingExtraError
from splitinfer.runtime.events import BatchReleased, PeriodEnded, Refused, Started, TailServed, TaskDone
from splitinfer.web import server
from splitinfer.web.server import WebPage
from splitinfer.web.state import LATENCIES_KEPT, PERIODS_KEPT, LiveState

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
    assert not re.findall(r"https?://|//[a-z]|@import|url\(", text)
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "connect-src 'self'" in headers["content-security-policy"]


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
    assert state["services"]["1/0"] == {"done": 0, "p50_s": None, "p95_s": None}
    page.add(period(1))
    news = json.loads(get(page, f"state?since={state['seen']}")[0])
    assert (news["reset"], len(news["periods"])) == (False, 1)
    assert json.loads(get(page, "state?since=abc:1")[0])["reset"], "a page from before a restart begins anew"
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


def test_an_edge_server_is_followed(page):
    page.add(TailServed("resnet18", 3, 1000, 40, 0.001, 0.004))
    page.add(BatchReleased("resnet18", 3, 4, 0.001, "queued", 1))
    page.add(Refused("INVALID_ARGUMENT", "no"))
    state = json.loads(get(page, "state")[0])
    assert state["edge"] == {"answered": 1, "bytes_up": 1000, "bytes_down": 40, "dropped": 1, "refused": 1}
    assert state["batches"] == {"4": 1}
    assert state["services"]["resnet18"]["p95_s"] == pytest.approx(0.005)


def test_what_is_kept_is_bounded():
    state = LiveState()
    state.add(START)
    for number in range(PERIODS_KEPT + 50):
        state.add(period(number))
    for slot in range(LATENCIES_KEPT + 50):
        state.add(TaskDone(1, 0, 54, slot, slot))
    news = state.since("")
    assert len(news["periods"]) == PERIODS_KEPT
    assert news["services"]["1/0"]["done"] == LATENCIES_KEPT + 50
    state.add(START)
    assert state.since("")["periods"] == [], "another run begins on an empty page"


def test_a_taken_port_and_absent_packages_are_one_line(page, monkeypatch):
    port = int(page.address.rstrip("/").rpartition(":")[2])
    with pytest.raises(InputError, match=rf"--web-port: cannot listen on 127.0.0.1:{port}"):
        WebPage(port=port)
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"splitinfer\[web\]"):
        WebPage()
