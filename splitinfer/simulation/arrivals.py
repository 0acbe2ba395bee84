"""When requests arrive: settings of a scenario, and the random processes that they start.

Every process draws slot by slot from its own generator, so the same seed gives the same arrivals whatever the policy
does and however many slots are asked for at a time.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from splitinfer.errors import ScenarioError
from splitinfer.simulation.fields import Positive, Settings

Counts = NDArray[np.int64]


class ArrivalProcess(Protocol):
    """Arrivals of one environment, advanced in order."""

    def counts(self, rates_hz: NDArray[np.float64], slots: int) -> Counts:
        """Return the requests that arrive in each of the next ``slots`` slots, shape (slots, M, N).

        Args:
            rates_hz: mean rates, shape (M, N), or (slots, M, N) where they change.
            slots: number of slots.
        """


class PoissonArrivals(Settings):
    """Independent requests at ``arrival_rate_hz`` (the paper's)."""

    kind: Literal["poisson"] = "poisson"

    def start(self, services: NDArray[np.bool_], slot_s: float, rng: np.random.Generator) -> ArrivalProcess:
        return _Poisson(slot_s, rng)


class PeriodicArrivals(Settings):
    """Camera frames: one request every ``1 / arrival_rate_hz`` seconds.

    Attributes:
        phase: when in its first interval a service has its first frame, as a share of the interval; ``"random"`` draws
            it for each service, 0 makes all cameras fire together.
    """

    kind: Literal["periodic"] = "periodic"
    phase: Annotated[float, Field(ge=0, lt=1)] | Literal["random"] = "random"

    def start(self, services: NDArray[np.bool_], slot_s: float, rng: np.random.Generator) -> ArrivalProcess:
        phase = rng.random(services.shape) if self.phase == "random" else np.full(services.shape, self.phase)
        return _Periodic(slot_s, phase)


class BurstyArrivals(Settings):
    """On-off bursts: a service is idle or busy for geometric times, and Poisson while busy; the mean rate is kept.

    Attributes:
        mean_on_s: mean length of a burst.
        mean_off_s: mean length of the silence between bursts.
    """

    kind: Literal["bursty"] = "bursty"
    mean_on_s: Positive = 1.0
    mean_off_s: Positive = 4.0

    def start(self, services: NDArray[np.bool_], slot_s: float, rng: np.random.Generator) -> ArrivalProcess:
        for name in ("mean_on_s", "mean_off_s"):
            if getattr(self, name) < 2 * slot_s:
                raise ScenarioError(f"arrivals.{name}: must be at least two slots ({2 * slot_s} s)")
        return _Bursty(slot_s, self.mean_on_s, self.mean_off_s, services.shape, rng)


class TraceArrivals(Settings):
    """Requests at recorded times.

    Attributes:
        path: a CSV file with the columns ``time_s``, ``device`` and ``service`` (numbers from 0) and one row a request.
        repeat_s: start the trace again after this many seconds; without it nothing arrives after the last row.
    """

    kind: Literal["trace"] = "trace"
    path: str
    repeat_s: Positive | None = None

    def start(self, services: NDArray[np.bool_], slot_s: float, rng: np.random.Generator) -> ArrivalProcess:
        return _Trace(read_arrival_trace(self.path, services), services.shape, slot_s, self.repeat_s)


ArrivalModel = Annotated[
    PoissonArrivals | PeriodicArrivals | BurstyArrivals | TraceArrivals,
    Field(discriminator="kind"),
]


def read_arrival_trace(path: str, services: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Read a trace of arrivals.

    Args:
        path: the CSV file.
        services: which (m, n) exist, shape (M, N).

    Returns:
        Shape (requests, 3): time in seconds, device, service; sorted by time.

    Raises:
        ScenarioError: the file is absent, lacks a column, or names a device or service that the scenario lacks.
    """
    rows = []
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                time_s, device, service = float(row["time_s"]), int(row["device"]), int(row["service"])
                inside = 0 <= device < services.shape[0] and 0 <= service < services.shape[1]
                if time_s < 0 or not inside or not services[device, service]:
                    raise ScenarioError(f"arrivals.path: {path} line {number}: no such time, device or service")
                rows.append((time_s, device, service))
    except OSError as error:
        raise ScenarioError(f"arrivals.path: cannot read {path}: {error.strerror}") from None
    except KeyError as error:
        raise ScenarioError(f"arrivals.path: {path} has no column {error}") from None
    except (TypeError, ValueError) as error:
        if isinstance(error, ScenarioError):
            raise
        raise ScenarioError(f"arrivals.path: {path} holds something that is not a number: {error}") from None
    return np.array(sorted(rows), dtype=np.float64).reshape(-1, 3)


class _Poisson:
    def __init__(self, slot_s: float, rng: np.random.Generator) -> None:
        self._slot_s = slot_s
        self._rng = rng

    def counts(self, rates_hz: NDArray[np.float64], slots: int) -> Counts:
        return self._rng.poisson(rates_hz * self._slot_s, size=(slots, *rates_hz.shape[-2:]))


class _Periodic:
    def __init__(self, slot_s: float, phase: NDArray[np.float64]) -> None:
        self._slot_s = slot_s
        # Frames due so far, with the fraction; a first frame at share `phase` of the interval.
        self._due = 1 - phase

    def counts(self, rates_hz: NDArray[np.float64], slots: int) -> Counts:
        steps = np.broadcast_to(rates_hz * self._slot_s, (slots, *self._due.shape))
        # The sum starts from what is carried, so that cutting the run into blocks changes no rounding.
        due = np.cumsum(np.concatenate([self._due[None], steps]), axis=0)
        self._due = due[-1]
        # Ten frames of 0.1 must make one: without the margin, rounding moves frames by a slot.
        return np.diff(np.floor(due + 1e-9), axis=0).astype(np.int64)


class _Bursty:
    def __init__(
        self, slot_s: float, mean_on_s: float, mean_off_s: float, shape: tuple[int, ...], rng: np.random.Generator
    ) -> None:
        self._slot_s = slot_s
        self._leave_on = slot_s / mean_on_s
        self._leave_off = slot_s / mean_off_s
        self._gain = (mean_on_s + mean_off_s) / mean_on_s
        # Two streams: how many uniforms precede a Poisson draw must not depend on the block's length.
        self._switches, self._requests = rng.spawn(2)
        self._on = self._switches.random(shape) < mean_on_s / (mean_on_s + mean_off_s)

    def counts(self, rates_hz: NDArray[np.float64], slots: int) -> Counts:
        # One uniform u per slot: u < leave_off turns on, u > 1 - leave_on turns off, else the state stays. That is the
        # two-state chain exactly, and the state is then the last switch before the slot: no loop over slots.
        u = self._switches.random((slots, *self._on.shape))
        switch = np.where(u < self._leave_off, 1, np.where(u > 1 - self._leave_on, 0, -1))
        switch = np.concatenate([self._on[None].astype(np.int64), switch])
        index = np.where(switch >= 0, np.arange(slots + 1)[:, None, None], 0)
        last = np.maximum.accumulate(index, axis=0)
        on = np.take_along_axis(switch, last, axis=0)
        self._on = on[-1] > 0
        return self._requests.poisson(on[1:] * (rates_hz * self._slot_s * self._gain))


class _Trace:
    def __init__(
        self, rows: NDArray[np.float64], shape: tuple[int, ...], slot_s: float, repeat_s: float | None
    ) -> None:
        self._length = None if repeat_s is None else max(1, round(repeat_s / slot_s))
        slot = np.floor(rows[:, 0] / slot_s + 1e-9).astype(np.int64)
        if self._length is not None:
            rows, slot = rows[slot < self._length], slot[slot < self._length]
        size = self._length if self._length is not None else int(slot.max(initial=-1)) + 1
        self._table = np.zeros((size, *shape), dtype=np.int64)
        np.add.at(self._table, (slot, rows[:, 1].astype(np.int64), rows[:, 2].astype(np.int64)), 1)
        self._next = 0

    def counts(self, rates_hz: NDArray[np.float64], slots: int) -> Counts:
        at = np.arange(self._next, self._next + slots)
        self._next += slots
        if self._length is not None:
            return self._table[at % self._length]
        counts = np.zeros((slots, *self._table.shape[1:]), dtype=np.int64)
        inside = at < len(self._table)
        counts[inside] = self._table[at[inside]]
        return counts
