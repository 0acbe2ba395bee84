"""The live page's data in a terminal: polled from the page's own server, so that it works over ssh."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any, ClassVar

from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.coordinate import Coordinate
from textual.widgets import DataTable, Footer, Static

from splitinfer.errors import RemoteError

POLL_S = 1.0
TIMEOUT_S = 5.0

_RUN = (
    *("device", "service", "cut", "Mcycles", "kbit", "edge Mcycles"),
    *("MHz", "kbit/s", "mW", "J", "done", "p50 ms", "p95 ms"),
)
_EDGE = ("model", "answered", "p50 ms", "p95 ms")


def fetch(server: str, seen: str = "") -> dict[str, Any]:
    """Return what is new on a live page since ``seen``.

    Args:
        server: ``host:port`` of the page (``--web-port``).
        seen: of the answer before; everything without it.

    Raises:
        RemoteError: nobody answers there, or somebody who has no such page.
    """
    try:
        with urllib.request.urlopen(f"http://{server}/state?since={seen}", timeout=TIMEOUT_S) as answer:
            news = json.load(answer)
        if not isinstance(news, dict) or "seen" not in news:
            raise ValueError
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise RemoteError(f"--server: no live page answers at {server}: {reason}", status="UNAVAILABLE") from None
    except ValueError:
        raise RemoteError(f"--server: what answers at {server} is no live page", status="INTERNAL") from None
    return news


class Top(App[None]):
    """Queues, cuts, power and latencies of a live run, or of an edge server, as they move.

    Args:
        server: ``host:port`` of the page (``--web-port``).
    """

    BINDINGS: ClassVar[list[BindingType]] = [("q", "quit", "quit"), ("p", "pause", "pause / go on")]
    CSS = "#head { height: auto; padding: 0 1; } DataTable { height: 1fr; }"

    def __init__(self, server: str) -> None:
        super().__init__()
        self._server = server
        self._seen = ""
        self._run: dict[str, Any] | None = None
        self._last: dict[str, Any] | None = None
        self._is_paused = False

    def compose(self) -> ComposeResult:
        yield Static("waiting for events", id="head")
        yield DataTable(cursor_type="none", zebra_stripes=True)
        yield Footer()

    def on_mount(self) -> None:
        """Begin to poll."""
        self.title = f"splitinfer {self._server}"
        self.set_interval(POLL_S, self.poll)
        self.poll()

    def action_pause(self) -> None:
        """Stand still, or go on."""
        self._is_paused = not self._is_paused

    def poll(self) -> None:
        """Ask the page in a thread of its own, and show what it says."""
        if not self._is_paused:
            self.run_worker(self._ask, thread=True, exclusive=True)

    def _ask(self) -> None:
        try:
            news = fetch(self._server, self._seen)
        except RemoteError as error:
            self.call_from_thread(self.query_one("#head", Static).update, f"{error}; trying again")
            return
        self.call_from_thread(self.show, news)

    def show(self, news: dict[str, Any]) -> None:
        """Take in an answer of the page."""
        self._seen = news["seen"]
        if news["reset"]:
            self._run, self._last = news["run"], None
        if news["periods"]:
            self._last = news["periods"][-1]
        self._fill(_RUN if self._run else _EDGE, self._run_rows(news) if self._run else self._edge_rows(news))
        self.query_one("#head", Static).update(self._head(news))

    def _fill(self, columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> None:
        """Show rows; where the table is the same, cell by cell, so that it stays where it was scrolled to."""
        table = self.query_one(DataTable)
        if [str(column.label) for column in table.columns.values()] != list(columns) or table.row_count != len(rows):
            table.clear(columns=True)
            table.add_columns(*columns)
            table.add_rows(rows)
            return
        for place, row in enumerate(rows):
            for column, text in enumerate(row):
                at = Coordinate(place, column)
                if table.get_cell_at(at) != text:
                    table.update_cell_at(at, text, update_width=True)

    def _head(self, news: dict[str, Any]) -> str:
        done = sum(service["done"] for service in news["services"].values())
        edge = "".join(
            f", {count} {what}" for what, count in news["edge"].items() if count and not what.startswith("bytes")
        )
        edge += "".join(f", {count} batches of {size}" for size, count in news["batches"].items())
        if self._run is None:
            return f"edge server{edge}"
        text = f"{self._run['scenario']}, policy {self._run['policy']}: {done} tasks{edge}"
        if self._last is not None:
            joules = sum(self._last["energy_j"])
            text += f", {self._last['time_s']:.1f} of {self._run['slots'] * self._run['slot_s']:g} s, {joules:.3g} J"
            for name, each in news["references_j"].items():
                saved = 1 - joules / (each * self._last["slots"]) if each > 0 else 0.0
                text += f", {abs(saved):.0%} {'less' if saved >= 0 else 'more'} than {name}"
        return text + (", over" if news["over"] else "")

    def _run_rows(self, news: dict[str, Any]) -> list[tuple[str, ...]]:
        assert self._run is not None
        rows: list[tuple[str, ...]] = []
        for m, services in enumerate(self._run["services"]):
            for n, name in enumerate(services):
                own = news["services"].get(f"{m}/{n}", {"done": 0, "p50_s": None, "p95_s": None})
                at = self._last
                first = n == 0
                moving = ("",) * 8
                if at is not None:
                    queues = [at["backlog"][stage][m][n] for stage in range(3)]
                    moving = (
                        self._run["choices"][m][n][at["cuts"][m][n]]
                        if self._run.get("choices")
                        else f"{at['cuts'][m][n]}/{self._run['num_cuts'][m][n]}",
                        f"{queues[0] / 1e6:.1f}",
                        f"{queues[1] / 1e3:.1f}",
                        f"{queues[2] / 1e6:.1f}",
                        f"{at['rate'][0][m][n] / 1e6:.0f}",
                        f"{at['rate'][1][m][n] / 1e3:.0f}",
                        f"{at['power_w'][m] * 1e3:.1f}" if first else "",
                        f"{at['energy_j'][m]:.3g}" if first else "",
                    )
                lost = " lost" if str(m) in news["lost"] else ""
                rows.append((f"{m}{lost}" if first else "", name, *moving, *_tasks(own)))
        return rows

    @staticmethod
    def _edge_rows(news: dict[str, Any]) -> list[tuple[str, ...]]:
        return [(name, *_tasks(own)) for name, own in sorted(news["services"].items())]


def _tasks(own: dict[str, Any]) -> tuple[str, str, str]:
    return str(own["done"]), _ms(own["p50_s"]), _ms(own["p95_s"])


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.0f}"
