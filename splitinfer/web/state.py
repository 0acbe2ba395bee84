"""What a page shows, folded from events: an observer, and snapshots of what is new since a number."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

import numpy as np

from splitinfer.runtime.events import (
    BatchReleased,
    DeviceLost,
    DeviceReturned,
    DidAlone,
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
"""Points of every line. Beyond, every other one of the older half is forgotten: a long run is kept, ever coarser."""

NUMBERS_KEPT = 64_000
"""Points of all services' lines: with many services each has fewer, but no less than ``FEWEST_PERIODS``."""

FEWEST_PERIODS = 400

LATENCIES_KEPT = 500
"""Tasks that percentiles and sizes of batches are over, per service (or model)."""


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
        self._number = self._began = 0
        self._run: dict[str, Any] | None = None
        self._periods: list[tuple[int, dict[str, Any]]] = []
        self._periods_kept = PERIODS_KEPT
        self._energy_j: list[list[float]] = []
        self._services: dict[str, _Tasks] = {}
        self._models: dict[str, _Tasks] = {}
        self._refused: Counter[str] = Counter()  # requests for no model that the edge has
        self._lost: dict[str, str] = {}  # why, by device
        self._rejoined: Counter[str] = Counter()  # by device
        self._retries: Counter[str] = Counter()  # by device
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
                own = self._services[f"{event.device}/{event.service}"]
                own.done(self._number, slots * self._run["slot_s"], event.batch)
            elif isinstance(event, TailServed):
                self._model(event.model).done(self._number, event.queue_s + event.tail_s, event.batch)
            elif isinstance(event, BatchReleased):
                self._model(event.model).released(self._number, event.size, event.dropped)
            elif isinstance(event, Refused) and event.model:
                self._model(event.model).count(self._number, "refused")
            elif isinstance(event, Refused):
                self._refused[event.status] += 1
            elif isinstance(event, Repeated):
                self._model(event.model).count(self._number, "repeated")
            elif isinstance(event, Inferred):
                self._model(event.model).count(self._number, "retries", event.retries)
                self._model(event.model).count(self._number, "fallbacks", event.ran_at == "device")
            elif isinstance(event, DeviceLost):
                self._lost[str(event.device)] = event.reason
            elif isinstance(event, DeviceReturned):
                self._lost.pop(str(event.device), None)
                self._rejoined[str(event.device)] += 1
            elif isinstance(event, DidAlone):
                self._retries[str(event.device)] += event.retries
                for service, many in enumerate(event.fallbacks):
                    self._services[f"{event.device}/{service}"].count(self._number, "fallbacks", many)
            elif isinstance(event, Ended):
                self._is_over = True

    def since(self, seen: str) -> dict[str, Any]:
        """Return what a page needs that has seen everything up to here; anything but what ``seen`` was: everything.

        Of services and models, those that changed.
        """
        epoch, _, digits = seen.partition(":")
        with self._lock:
            number = int(digits) if epoch == self.epoch and digits.isdigit() and len(digits) < 16 else 0
            is_new = number == 0 or not self._began <= number <= self._number

            def news(tasks: dict[str, _Tasks]) -> dict[str, Any]:
                return {name: own.shown() for name, own in tasks.items() if is_new or own.changed > number}

            return {
                "seen": f"{self.epoch}:{self._number}",
                "reset": is_new,
                "run": self._run if is_new else None,
                "over": self._is_over,
                "references_j": self.references_j,
                "lost": dict(self._lost),
                "rejoined": dict(self._rejoined),
                "retries": dict(self._retries),
                "periods": [period for at, period in self._periods if is_new or at > number],
                "services": news(self._services),
                "models": news(self._models),
                "refused": dict(self._refused),
            }

    def _begin(self, event: Started) -> None:
        number = self._number
        self._clear()
        self._number = self._began = number
        self._run = {
            "scenario": event.scenario,
            "policy": event.policy,
            "slots": event.slots,
            "slot_s": event.slot_s,
            "services": event.services,
            "num_cuts": event.num_cuts,
            "choices": event.choices,
            "targets_s": event.targets_s,
        }
        self._energy_j = [[0.0, 0.0] for _ in event.services]
        for device, services in enumerate(event.services):
            for service in range(len(services)):
                self._services[f"{device}/{service}"] = _Tasks(number)
        fitting = NUMBERS_KEPT // max(len(self._services), 1)
        self._periods_kept = min(max(fitting, FEWEST_PERIODS), PERIODS_KEPT)

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
            "backlog": _rounded(event.backlog),
            "rate": _rounded(event.service_rate[:2]),  # what the edge computes for a service is nowhere shown
            "power_w": _rounded(event.power_w),
            "energy_j": [sum(own) for own in self._energy_j],
        }
        self._periods.append((self._number, record))
        if len(self._periods) > self._periods_kept:
            half = len(self._periods) // 2
            self._periods = self._periods[:half:2] + self._periods[half:]

    def _model(self, name: str) -> _Tasks:
        own = self._models.get(name)
        if own is None:
            own = self._models[name] = _Tasks(self._number)
        return own


class _Tasks:
    """What became of the requests of a service, or of a model.

    Attributes:
        changed: number of the event that changed it last.
    """

    def __init__(self, number: int) -> None:
        self.changed = number
        self._done = 0
        self._latency_s: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._batch: deque[int] = deque(maxlen=LATENCIES_KEPT)
        self._sizes: Counter[int] = Counter()
        self._counts: Counter[str] = Counter()

    def done(self, number: int, latency_s: float, batch: int) -> None:
        self.changed = number
        self._done += 1
        self._latency_s.append(latency_s)
        if batch:
            self._batch.append(batch)

    def released(self, number: int, size: int, dropped: int) -> None:
        self.changed = number
        self._sizes[size] += 1
        self._counts["dropped"] += dropped

    def count(self, number: int, what: str, many: int = 1) -> None:
        self.changed = number
        self._counts[what] += many

    def shown(self) -> dict[str, Any]:
        p50_s = p95_s = None
        if self._latency_s:
            p50_s, p95_s = np.percentile(list(self._latency_s), [50, 95]).tolist()
        return {
            "done": self._done,
            "p50_s": p50_s,
            "p95_s": p95_s,
            "batch": sum(self._batch) / len(self._batch) if self._batch else None,
            "sizes": {str(size): count for size, count in sorted(self._sizes.items())},
            "counts": {what: count for what, count in self._counts.items() if count},
        }


def _rounded(numbers: Iterable[Any]) -> list[Any]:
    """Four digits are more than a line on a page shows, and a third of the bytes."""
    return [float(f"{one:.4g}") if isinstance(one, (int, float)) else _rounded(one) for one in numbers]
