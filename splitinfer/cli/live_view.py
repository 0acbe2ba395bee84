"""The view of a live run while it goes: one row per device and service, on a terminal only."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from splitinfer.runtime.events import Event, PeriodEnded, Started, TaskDone

if TYPE_CHECKING:
    from rich.table import Table

_COLUMNS = (
    "device",
    "service",
    "cut",
    "local Mcycles",
    "link kbit",
    "edge Mcycles",
    "f MHz",
    "r kbit/s",
    "p mW",
    "energy mJ",
    "done",
    "latency ms",
)


class LiveView:
    """Follows the events of a run. Use it as a context manager; where there is no terminal it shows nothing."""

    def __init__(self) -> None:
        self._start: Started | None = None
        self._period: PeriodEnded | None = None
        self._energy_j: list[float] = []
        self._done: dict[tuple[int, int], int] = {}
        self._last_latency_s: dict[tuple[int, int], float] = {}
        self._live: Any = None
        self._context: AbstractContextManager[Any] = nullcontext()

    def __enter__(self) -> LiveView:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._context = Live(
                "loading the models ...", console=Console(stderr=True), refresh_per_second=4, transient=True
            )
        self._live = self._context.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._context.__exit__(*exc)

    def add(self, event: Event) -> None:
        """Take an event and show what it changes."""
        match event:
            case Started():
                self._start = event
                self._energy_j = [0.0] * len(event.services)
            case TaskDone() if self._start is not None:
                key = event.device, event.service
                self._done[key] = self._done.get(key, 0) + 1
                self._last_latency_s[key] = (event.finish_slot + 1 - event.arrival_slot) * self._start.slot_s
            case PeriodEnded():
                self._period = event
                for device in range(len(self._energy_j)):
                    joules = event.local_energy_j[device] + event.transmission_energy_j[device]
                    self._energy_j[device] += joules * event.slots
                if self._live is not None:
                    self._live.update(self.table())

    def table(self) -> Table:
        """Return the view as it is now."""
        from rich.table import Table

        start, period = self._start, self._period
        assert start is not None
        assert period is not None
        done_s = (period.first_slot + period.slots) * start.slot_s
        all_s = start.slots * start.slot_s
        table = Table(title=f"{start.scenario}, policy {start.policy}: {done_s:.1f} of {all_s:g} s")
        for name in _COLUMNS:
            table.add_column(name, justify="left" if name == "service" else "right")
        for device, services in enumerate(start.services):
            for service, model in enumerate(services):
                key = device, service
                local, link, edge = (period.backlog[stage][device][service] for stage in range(3))
                latency_s = self._last_latency_s.get(key)
                is_first = service == 0
                table.add_row(
                    str(device) if is_first else "",
                    model,
                    start.choices[device][service][period.cuts[device][service]]
                    if start.choices
                    else f"{period.cuts[device][service]}/{start.num_cuts[device][service]}",
                    f"{local / 1e6:.1f}",
                    f"{link / 1e3:.1f}",
                    f"{edge / 1e6:.1f}",
                    f"{period.service_rate[0][device][service] / 1e6:.0f}",
                    f"{period.service_rate[1][device][service] / 1e3:.0f}",
                    f"{period.power_w[device] * 1e3:.0f}" if is_first else "",
                    f"{self._energy_j[device] * 1e3:.0f}" if is_first else "",
                    str(self._done.get(key, 0)),
                    "" if latency_s is None else f"{latency_s * 1e3:.0f}",
                )
        return table
