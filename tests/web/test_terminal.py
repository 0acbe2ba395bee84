"""``splitinfer top``: the page's data in a terminal, driven by Textual's own pilot."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import threading
from collections.abc import Iterator

import pytest

from splitinfer.cli.main import main
from splitinfer.runtime.events import (
    BatchReleased,
    DeviceLost,
    DeviceReturned,
    DidAlone,
    PeriodEnded,
    Refused,
    Repeated,
    Started,
    TailServed,
    TaskDone,
)
from splitinfer.web.server import WebPage
from tests.web.test_page import START, period

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("textual")

from textual.widgets import DataTable, Static

from splitinfer.web import terminal

CROWD = Started("crowd", "price", 0, 100, 0.01, 1.0, 0.0, [["a", "b", "c", "d"]] * 64, [[9] * 4] * 64)


@pytest.fixture
def page() -> Iterator[WebPage]:
    page = WebPage()
    yield page
    page.close()


def shown(page: WebPage, *, rows: int, then: str = "", width: int = 160) -> tuple[str, list[list[str]]]:
    """Head and table once the table has this many rows and the head holds these words."""

    async def watch() -> tuple[str, list[list[str]]]:
        app = terminal.Top(page.address.removeprefix("http://").rstrip("/"))
        async with app.run_test(size=(width, 40)) as pilot:
            table, head = app.query_one(DataTable), app.query_one("#head", Static)
            for _ in range(200):
                await pilot.pause(0.05)
                if table.row_count == rows and then in str(head.render()):
                    break
            return str(head.render()), [[str(cell) for cell in table.get_row_at(row)] for row in range(table.row_count)]

    return asyncio.run(watch())


def test_a_run(page: WebPage) -> None:
    page.state.references_j = {"full local": 1.0}
    page.add(dataclasses.replace(START, targets_s=[[0.0, 0.04], [1.0]]))
    page.add(period(0))
    page.add(TaskDone(0, 1, 53, 0, 4, 2))
    page.add(DidAlone(0, 10, 3, [0, 7]))
    page.add(BatchReleased("resnet50", 3, 4, 0.001, "queued", 0))
    head, rows = shown(page, rows=3, then="J")
    assert "busy, policy price: 1 tasks" in head
    assert "less than full local" in head
    assert "0 of 1 services within target" in head
    assert "batches of resnet50: 1 of 4" in head
    # Device, service, cut, batch; queues and what serves them; energy, fallbacks, returns, tries to; latencies, tasks.
    assert rows[0][:4] == ["0", "resnet50", "0/54", "-"]
    assert rows[0][4:10] == ["0.0", "0", "0.0", "0", "0.0", "100.0"]
    assert rows[0][10:] == ["0.02", "0", "0", "3", "-", "-", "0", ""]
    assert rows[1][:4] == ["", "mobilenet_v2", "53/53", "2.0"]
    assert rows[1][9:] == ["", "", "7", "", "", "50", "50", "1", "40"]
    assert rows[2][-5:] == ["0", "-", "-", "0", "1000"]


@pytest.mark.parametrize("width", [80, 160])
def test_no_fact_is_cut_off_whatever_the_width(page: WebPage, width: int) -> None:
    page.add(dataclasses.replace(CROWD, services=[["efficientnet_b0"] * 4] * 64, targets_s=[[1.0] * 4] * 64))
    rows = [[[12.34e6] * 4] * 64] * 3
    page.add(PeriodEnded(0, 10, [[9] * 4] * 64, rows, rows, *[[0.1] * 64] * 4))

    async def watch() -> None:
        app = terminal.Top(page.address.removeprefix("http://").rstrip("/"))
        async with app.run_test(size=(width, 24)) as pilot:
            table = app.query_one(DataTable)
            while table.row_count != 256 or table.virtual_size.width < 60:
                await pilot.pause(0.05)
            assert table.virtual_size.width <= width - 2, "beside the scroll bar"
            shown = " ".join(str(column.label) for column in table.columns.values()).split()
            assert set(" ".join(fact for cell in terminal._RUN for fact in cell).split()) == set(shown)

    asyncio.run(asyncio.wait_for(watch(), 60))


def test_a_table_that_was_scrolled_stays_and_a_lost_device_is_named(page: WebPage) -> None:
    page.add(CROWD)

    async def watch() -> None:
        app = terminal.Top(page.address.removeprefix("http://").rstrip("/"))
        async with app.run_test(size=(160, 40)) as pilot:
            table = app.query_one(DataTable)
            while table.row_count != 256:
                await pilot.pause(0.05)
            while table.scroll_y != 200:  # once it is laid out
                table.scroll_to(y=200, animate=False)
                await pilot.pause(0.05)
            page.add(DeviceLost(63, 5, 0, "its connection ended"))
            while str(table.get_row_at(252)[0]) != "63 lost":
                await pilot.pause(0.05)
            assert table.scroll_y == 200
            page.add(DeviceReturned(63, 9))
            while str(table.get_row_at(252)[0]) != "63":
                await pilot.pause(0.05)

    asyncio.run(asyncio.wait_for(watch(), 60))


def test_an_edge_server(page: WebPage) -> None:
    page.add(TailServed("resnet18", 3, 1000, 40, 0.001, 0.004))
    page.add(BatchReleased("resnet18", 3, 4, 0.001, "queued", 1))
    page.add(Refused("INVALID_ARGUMENT", "no"))
    page.add(Repeated("resnet18", 3))
    page.add(Refused("INVALID_ARGUMENT", "no", model="resnet18"))
    head, rows = shown(page, rows=1)
    assert "1 answered" in head
    assert "1 refused (INVALID_ARGUMENT)" in head
    assert rows == [["resnet18", "1 of 4", "1", "1", "5", "5", "1", "1", "0", "0"]]
    _, rows = shown(page, rows=1, width=80)
    assert rows == [["resnet18\n1 of 4", "1\n1", "5\n5", "1\n1", "0\n0"]]


def test_a_server_that_goes_away_is_said(page: WebPage) -> None:
    page.close()
    head, _ = shown(page, rows=0, then="trying again")
    assert "no live page answers" in head


@pytest.mark.parametrize("server", ["nonsense", "host:", "host:99999", "http://host:80", ":80"])
def test_a_wrong_address_is_one_line(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--server", server]) == 2
    assert f"--server: must be HOST:PORT, not {server!r}" in capsys.readouterr().err


def test_nobody_there_and_somebody_else_are_one_line(page: WebPage, capsys: pytest.CaptureFixture[str]) -> None:
    page.close()
    address = page.address.removeprefix("http://").rstrip("/")
    assert main(["top", "--server", address]) != 0
    assert f"no live page answers at {address}" in capsys.readouterr().err


@pytest.mark.parametrize("answer", [b"\x00\x00\x18\x04", b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000])
def test_a_port_of_something_else_is_one_line(answer: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def reply() -> None:
            peer, _ = other.accept()
            with peer:
                peer.recv(1000)
                peer.sendall(answer)

        threading.Thread(target=reply, daemon=True).start()
        assert main(["top", "--server", f"127.0.0.1:{other.getsockname()[1]}"]) != 0
    assert "is no live page; its port is the one given as --web-port" in capsys.readouterr().err


def test_an_absent_extra_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["top"]) == 2
    assert "pip install 'splitinfer[top]'" in capsys.readouterr().err
