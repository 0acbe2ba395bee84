"""When requests arrive: settings of a scenario, and the random processes that they start.

Every process draws slot by slot from its own generator, so the same seed gives the same arrivals whatever the policy
does and however many slots are asked for at a time.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from splitinfer.errors import InputError, ScenarioError
from splitinfer.simulation.fields import Positive, Settings
from splitinfer.simulation.traces import TIME_COLUMNS, column, numbers, read_columns, times_s
from splitinfer.user_code import make_own, user_code

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
        path: a CSV file with a header and one row a request: ``time_s`` (seconds from the start; or ``epoch_s``,
            ``epoch_ms``, ``timestamp``: seconds or milliseconds since 1970, or ISO 8601 times, which count from the
            first request), ``device`` and ``service`` (numbers from 0; not needed where there is only one).
        repeat_s: start the trace again after this many seconds; without it nothing arrives after the last row, which
            a run that goes on says.
    """

    kind: Literal["trace"] = "trace"
    path: str
    repeat_s: Positive | None = None

    def start(self, services: NDArray[np.bool_], slot_s: float, rng: np.random.Generator) -> ArrivalProcess:
        return _Trace(read_arrival_trace(self.path, services), services.shape, slot_s, self.repeat_s)


class OwnArrivals(Settings):
    """Arrivals of the user's own: ``arrivals = "package.module:Class(k=3)"``.

    The class has ``start(services, slot_s, rng)``, which returns an ``ArrivalProcess``. Naming it runs the module's
    code.

    Attributes:
        name: ``package.module:Class``, with literal arguments where it needs some.
    """

    kind: Literal["own"] = "own"
    name: str

    def start(self, services: NDArray[np.bool_], slot_s: float, rng: np.random.Generator) -> ArrivalProcess:
        return CheckedArrivals(start_own("arrivals", self.name, (services, slot_s, rng)), self.name)


ArrivalModel = Annotated[
    PoissonArrivals | PeriodicArrivals | BurstyArrivals | TraceArrivals | OwnArrivals,
    Field(discriminator="kind"),
]


class CheckedArrivals:
    """A process of the user's own, whose answers are looked at."""

    def __init__(self, process: Any, name: str) -> None:
        self._process = process
        self._name = name

    def counts(self, rates_hz: NDArray[np.float64], slots: int) -> Counts:
        with user_code(f"arrivals: {self._name}"):
            counts = np.asarray(self._process.counts(rates_hz, slots))
        shape = (slots, *rates_hz.shape[-2:])
        if counts.shape != shape or not np.issubdtype(counts.dtype, np.integer) or (counts < 0).any():
            raise InputError(
                f"arrivals: {self._name} must return whole numbers of at least 0 of the shape {shape}, "
                f"got {counts.dtype} {counts.shape}"
            )
        return counts


def start_own(field: str, name: str, arguments: tuple[Any, ...]) -> Any:
    """Make an object of the user's own and start its process.

    Raises:
        InputError: it is none, or fails.
    """
    model = make_own(name, field, ("start",))
    if not callable(getattr(model, "start", None)):
        raise InputError(f"{field}: {name} has no method start")
    with user_code(f"{field}: {name}"):
        return model.start(*arguments)


def read_arrival_trace(path: str, services: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Read a trace of arrivals.

    Args:
        path: the CSV file.
        services: which (m, n) exist, shape (M, N).

    Returns:
        Shape (requests, 3): time in seconds, device, service; sorted by time.

    Raises:
        ScenarioError: the file is absent, empty, lacks a column, or has a row with a time, device or service that
            cannot be; the line is named.
    """
    field = "arrivals.path"
    header, rows = read_columns(path, field)
    at = column(path, field, header, TIME_COLUMNS)
    times = times_s(path, field, header[at], [(line, row[at]) for line, row in rows])
    whose = []
    for name, limit in (("device", services.shape[0]), ("service", services.shape[1])):
        if limit == 1 and name not in [one.lower() for one in header]:
            whose.append(np.zeros(len(rows)))
            continue
        where = column(path, field, header, (name,))
        values = numbers(path, field, name, [(line, row[where]) for line, row in rows])
        wrong = (values != np.floor(values)) | (values < 0) | (values >= limit)
        if wrong.any():
            first = int(np.argmax(wrong))
            raise ScenarioError(
                f"{field}: {path} line {rows[first][0]}: {name} {values[first]:g} is not one of 0..{limit - 1}"
            )
        whose.append(values)
    device, service = whose
    absent = ~services[device.astype(int), service.astype(int)]
    if absent.any():
        first = int(np.argmax(absent))
        raise ScenarioError(
            f"{field}: {path} line {rows[first][0]}: device {device[first]:g} has no service {service[first]:g}"
        )
    order = np.lexsort((service, device, times))
    return np.stack([times, device, service], axis=1)[order]


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
        self.ends_s = None if repeat_s is not None else float(rows[-1, 0])
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
