"""The live page's data in a terminal: polled from the page's own server, so that it works over ssh."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from rich.markup import escape
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.coordinate import Coordinate
from textual.widgets import DataTable, Footer, Static

from splitinfer.errors import RemoteError

POLL_S = 1.0
TIMEOUT_S = 5.0

WIDE = 132
"""Columns of a terminal that hold every fact on one line; in a narrower one each row has two."""

LONGEST = 15
"""Characters of a model's name, or a cut's, that are shown."""

_RUN = (
    ("device", "service"),
    ("cut", "batch"),
    ("Mcyc", "MHz"),
    ("kbit", "kbit/s"),
    ("eMcyc", "mW"),
    ("J", "fallb."),
    ("rejoin", "tries"),
    ("p50 ms", "p95 ms"),
    ("done", "target"),
)
"""Facts of a service, those of one cell of a narrow table together. Queues: Mcyc, kbit, and eMcyc at the edge."""

_EDGE = (
    ("model", "batches"),
    ("answered", "dropped"),
    ("p50 ms", "p95 ms"),
    ("repeated", "refused"),
    ("retries", "fallb."),
)


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
    except (ValueError, RecursionError, http.client.HTTPException):
        what = f"--server: what answers at {server} is no live page; its port is the one given as --web-port"
        raise RemoteError(what, status="INTERNAL") from None
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
        self._services: dict[str, Any] = {}
        self._models: dict[str, Any] = {}
        self._lost: dict[str, str] = {}
        self._rejoined: dict[str, int] = {}
        self._retries: dict[str, int] = {}
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

    def on_resize(self) -> None:
        """Give each row one line or two, as there is room."""
        self._show_table()

    def show(self, news: dict[str, Any]) -> None:
        """Take in an answer of the page."""
        self._seen = news["seen"]
        if news["reset"]:
            self._run, self._last, self._services, self._models = news["run"], None, {}, {}
        if news["periods"]:
            self._last = news["periods"][-1]
        self._services |= news["services"]
        self._models |= news["models"]
        self._lost, self._rejoined, self._retries = news["lost"], news["rejoined"], news["retries"]
        self._show_table()
        self.query_one("#head", Static).update(self._head(news))

    def _show_table(self) -> None:
        facts = list(self._of_run() if self._run else self._of_models())
        layout: Sequence[tuple[str, ...]] = _RUN if self._run else _EDGE
        if self.size.width >= WIDE:
            layout = [(name,) for pair in layout for name in pair]
        rows = [
            tuple(Text("\n").join(Text.from_markup(row[name]) for name in cell) for cell in layout) for row in facts
        ]
        self._fill(["\n".join(cell) for cell in layout], rows, lines=max(map(len, layout)))

    def _fill(self, columns: Sequence[str], rows: Sequence[tuple[Text, ...]], *, lines: int) -> None:
        """Show rows; where the table is the same, cell by cell, so that it stays where it was scrolled to."""
        table = self.query_one(DataTable)
        if [str(column.label) for column in table.columns.values()] != list(columns) or table.row_count != len(rows):
            table.clear(columns=True)
            table.header_height = lines
            table.add_columns(*columns)
            for row in rows:
                table.add_row(*row, height=lines)
            return
        for place, row in enumerate(rows):
            for column, text in enumerate(row):
                at = Coordinate(place, column)
                if table.get_cell_at(at) != text:
                    table.update_cell_at(at, text, update_width=True)

    def _head(self, news: dict[str, Any]) -> str:
        strangers = "".join(f", {count} refused ({status})" for status, count in news["refused"].items())
        if self._run is None:
            return f"edge server: {sum(own['done'] for own in self._models.values())} answered{strangers}"
        done = sum(service["done"] for service in self._services.values())
        text = f"{self._run['scenario']}, policy {self._run['policy']}: {done} tasks"
        if self._last is not None:
            joules = sum(self._last["energy_j"])
            text += f", {self._last['time_s']:.1f} of {self._run['slots'] * self._run['slot_s']:g} s, {joules:.3g} J"
            for name, each in news["references_j"].items():
                saved = 1 - joules / (each * self._last["slots"]) if each > 0 else 0.0
                text += f", {abs(saved):.0%} {'less' if saved >= 0 else 'more'} than {name}"
        judged = [met for own, target_s in self._aimed() if (met := _meets(own, target_s)) is not None]
        if judged:
            text += f", {sum(judged)} of {len(judged)} services within target"
        text += "".join(f"; batches of {name}: {_sizes(own)}" for name, own in sorted(self._models.items()))
        return text + strangers + (", over" if news["over"] else "")

    def _aimed(self) -> Iterator[tuple[dict[str, Any], float]]:
        targets_s = (self._run or {}).get("targets_s") or []
        for m, device in enumerate(targets_s):
            for n, target_s in enumerate(device):
                yield self._services[f"{m}/{n}"], target_s

    def _of_run(self) -> Iterator[dict[str, str]]:
        """What there is to say of each service, by the names of ``_RUN``."""
        run, at = self._run, self._last
        assert run is not None
        for m, services in enumerate(run["services"]):
            for n, name in enumerate(services):
                own = self._services[f"{m}/{n}"]
                target_s = run["targets_s"][m][n] if run.get("targets_s") else 0.0
                lost = f"[bold red]{m} lost[/]" if str(m) in self._lost else str(m)
                facts = dict.fromkeys((fact for pair in _RUN for fact in pair), "")
                facts |= {"device": lost if n == 0 else "", "service": _name(name)} | _tasks(own, target_s)
                facts["target"] = f"{target_s * 1e3:.0f}" if target_s else ""
                if n == 0:
                    facts["rejoin"] = str(self._rejoined.get(str(m), 0))
                    facts["tries"] = str(self._retries.get(str(m), 0))
                if at is not None:
                    cut = at["cuts"][m][n]
                    local, link, edge = (at["backlog"][stage][m][n] for stage in range(3))
                    label = run["choices"][m][n][cut] if run["choices"] else f"{cut}/{run['num_cuts'][m][n]}"
                    facts |= {
                        "cut": _name(label),
                        "Mcyc": f"{local / 1e6:.1f}",
                        "kbit": f"{link / 1e3:.1f}",
                        "eMcyc": f"{edge / 1e6:.1f}",
                        "MHz": f"{at['rate'][0][m][n] / 1e6:.0f}",
                        "kbit/s": f"{at['rate'][1][m][n] / 1e3:.0f}",
                        "mW": f"{at['power_w'][m] * 1e3:.1f}" if n == 0 else "",
                        "J": f"{at['energy_j'][m]:.3g}" if n == 0 else "",
                    }
                yield facts

    def _of_models(self) -> Iterator[dict[str, str]]:
        for name, own in sorted(self._models.items()):
            facts = {"model": _name(name), "answered": str(own["done"]), "batches": _sizes(own)} | _tasks(own)
            yield facts | {
                what: str(own["counts"].get(what, 0)) for what in ("dropped", "repeated", "refused", "retries")
            }


def _tasks(own: dict[str, Any], target_s: float = 0.0) -> dict[str, str]:
    p95 = _ms(own["p95_s"])
    met = _meets(own, target_s)
    return {
        "done": str(own["done"]),
        "p50 ms": _ms(own["p50_s"]),
        "p95 ms": p95 if met is None else f"[{'green' if met else 'bold red'}]{p95}[/]",
        "batch": "-" if own["batch"] is None else f"{own['batch']:.1f}",
        "fallb.": str(own["counts"].get("fallbacks", 0)),
    }


def _meets(own: dict[str, Any], target_s: float) -> bool | None:
    """Whether a service meets its target; None where it has none, or nothing is done."""
    return None if not target_s or own["p95_s"] is None else own["p95_s"] <= target_s


def _sizes(own: dict[str, Any]) -> str:
    return ", ".join(f"{count} of {size}" for size, count in own["sizes"].items()) or "-"


def _name(text: str) -> str:
    return escape(text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…")


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.0f}"
