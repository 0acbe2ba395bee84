"""What a page shows, folded from events: an observer, and snapshots of what is new since a number."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from typing import Any

import numpy as np

from splitinfer.runtime.events import (
    BatchReleased,
    DeviceLost,
    DeviceReturned,
    Ended,
    Event,
    Inferred,
    PeriodEnded,
    Refused,
    Repeated,
    Started,
    TailServed,
    TaskDone,
)

PERIODS_KEPT = 2_000
"""Points of every line; older ones are forgotten."""

LATENCIES_KEPT = 500
"""Tasks that percentiles are over, per service (or model)."""


class LiveState:
    """Folds events; safe to call from any thread.

    Attributes:
        epoch: tells this state from that of another start of the server, whose numbers mean other events.
        references_j: joules of a slot, all devices, under policies that a run is compared with, by name.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.epoch = f"{time.time_ns():x}"
        self.references_j: dict[str, float] = {}
        self._clear()

    def _clear(self) -> None:
        self._number = 0
        self._run: dict[str, Any] | None = None
        self._periods: deque[tuple[int, dict[str, Any]]] = deque(maxlen=PERIODS_KEPT)
        self._energy_j: list[list[float]] = []
        self._latency_s: dict[str, deque[float]] = {}
        self._done: Counter[str] = Counter()
        self._edge: Counter[str] = Counter()
        self._batches: Counter[int] = Counter()
        self._lost: dict[str, str] = {}  # why, by device
        self._is_over = False

    def add(self, event: Event) -> None:
        """Take one event in."""
        with self._lock:
            self._number += 1
            if isinstance(event, Started):
                self._begin(event)
            elif isinstance(event, PeriodEnded):
                self._period(event)
            elif isinstance(event, TaskDone) and self._run is not None:
                slots = event.finish_slot + 1 - event.arrival_slot
                self._task(f"{event.device}/{event.service}", slots * self._run["slot_s"])
            elif isinstance(event, TailServed):
                self._edge["answered"] += 1
                self._edge["bytes_up"] += event.bytes_up
                self._edge["bytes_down"] += event.bytes_down
                self._task(event.model, event.queue_s + event.tail_s)
            elif isinstance(event, BatchReleased):
                self._batches[event.size] += 1
                self._edge["dropped"] += event.dropped
            elif isinstance(event, Refused):
                self._edge["refused"] += 1
            elif isinstance(event, Repeated):
                self._edge["repeated"] += 1
            elif isinstance(event, Inferred):
                self._edge["retries"] += event.retries
                self._edge["fallbacks"] += event.ran_at == "device"
            elif isinstance(event, DeviceLost):
                self._lost[str(event.device)] = event.reason
            elif isinstance(event, DeviceReturned):
                self._lost.pop(str(event.device), None)
            elif isinstance(event, Ended):
                self._is_over = True

    def since(self, seen: str) -> dict[str, Any]:
        """Return what a page needs that has seen everything up to here; anything but what ``seen`` was: everything."""
        epoch, _, digits = seen.partition(":")
        with self._lock:
            number = int(digits) if epoch == self.epoch and digits.isdigit() and len(digits) < 16 else 0
            is_new = number == 0 or number > self._number
            return {
                "seen": f"{self.epoch}:{self._number}",
                "reset": is_new,
                "run": self._run if is_new else None,
                "over": self._is_over,
                "references_j": self.references_j,
                "lost": dict(self._lost),
                "periods": [period for at, period in self._periods if is_new or at > number],
                "services": {name: self._service(name) for name in self._latency_s},
                "edge": dict(self._edge),
                "batches": {str(size): count for size, count in sorted(self._batches.items())},
            }

    def _begin(self, event: Started) -> None:
        number = self._number
        self._clear()
        self._number = number
        self._run = {
            "scenario": event.scenario,
            "policy": event.policy,
            "slots": event.slots,
            "slot_s": event.slot_s,
            "services": event.services,
            "num_cuts": event.num_cuts,
            "choices": event.choices,
        }
        self._energy_j = [[0.0, 0.0] for _ in event.services]
        for device, services in enumerate(event.services):
            for service in range(len(services)):
                self._latency_s[f"{device}/{service}"] = deque(maxlen=LATENCIES_KEPT)

    def _period(self, event: PeriodEnded) -> None:
        if self._run is None:
            return
        for own, local, sent in zip(self._energy_j, event.local_energy_j, event.transmission_energy_j, strict=True):
            own[0] += local * event.slots
            own[1] += sent * event.slots
        end_s = (event.first_slot + event.slots) * self._run["slot_s"]
        record = {
            "time_s": end_s,
            "cuts": event.cuts,
            "slots": event.first_slot + event.slots,
            "backlog": event.backlog,
            "rate": event.service_rate,
            "power_w": event.power_w,
            "energy_j": [sum(own) for own in self._energy_j],
        }
        self._periods.append((self._number, record))

    def _task(self, name: str, latency_s: float) -> None:
        self._done[name] += 1
        self._latency_s.setdefault(name, deque(maxlen=LATENCIES_KEPT)).append(latency_s)

    def _service(self, name: str) -> dict[str, Any]:
        held = self._latency_s[name]
        if not held:
            return {"done": self._done[name], "p50_s": None, "p95_s": None}
        p50, p95 = np.percentile(list(held), [50, 95]).tolist()
        return {"done": self._done[name], "p50_s": p50, "p95_s": p95}
