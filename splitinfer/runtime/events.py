"""What happens at an edge, as values that any number of observers follow without holding up whoever says it.

A trace file, a report, a view on a terminal or a page are observers. Each has a thread and a queue of its own behind a
``Fanout``, so that a slow one delays neither a slot nor another observer. One that must see all of a run (a trace, a
report) is kept everything for; the others lose what comes too fast, and how much is counted.
"""

from __future__ import annotations

import dataclasses
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar

from splitinfer.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. ``kind`` is its name in trace files."""

    kind: ClassVar[str] = ""

    def to_dict(self) -> dict[str, Any]:
        """Return ``{"event": kind, ...}``, ready for JSON."""
        return {"event": self.kind} | {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


@dataclass(frozen=True, slots=True)
class Started(Event):
    """A live run begins: what runs, how fast, and on which services, one list per device.

    ``choices`` says what each service's cuts 0, 1, ... stand for: a cut, and the codec it is sent in if there is one.
    ``targets_s`` are the latency targets of the 95th percentile, 0 for a service without one; empty where nothing has.
    """

    kind: ClassVar[str] = "start"
    scenario: str
    policy: str
    seed: int
    slots: int
    slot_s: float
    time_scale: float
    patience_s: float
    services: list[list[str]]
    num_cuts: list[list[int]]
    tolerance: float = 0.0
    choices: list[list[list[str]]] = dataclasses.field(default_factory=list)
    targets_s: list[list[float]] = dataclasses.field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PeriodEnded(Event):
    """Means of one partition period of a live run, named and shaped as in ``scheduling.period.Period``."""

    kind: ClassVar[str] = "period"
    first_slot: int
    slots: int
    cuts: list[list[int]]
    backlog: list[Any]
    service_rate: list[Any]
    power_w: list[float]
    max_rate_bps: list[float]
    local_energy_j: list[float]
    transmission_energy_j: list[float]

    @classmethod
    def of(cls, period: Any, *, first_slot: int) -> PeriodEnded:
        """Return the event of a period whose first slot was this one."""
        names = [field.name for field in dataclasses.fields(cls) if field.name not in ("first_slot", "slots")]
        return cls(first_slot, period.slots, **{name: getattr(period, name).tolist() for name in names})


@dataclass(frozen=True, slots=True)
class TaskDone(Event):
    """A task of a live run is finished; its tail was computed together with ``batch`` - 1 others, 0: it had none."""

    kind: ClassVar[str] = "task"
    device: int
    service: int
    cut: int
    arrival_slot: int
    finish_slot: int
    batch: int = 0


@dataclass(frozen=True, slots=True)
class DeviceLeft(Event):
    """What one device alone knows of a live run: answers checked, overruns, and where its host was too slow."""

    kind: ClassVar[str] = "device"
    device: int
    checked: int
    wrong: int
    unanswered: int
    unexpected: int
    slot_overruns: int
    late_cuts: int
    shortfall: dict[str, Any]
    wall_latency_s: list[float]


@dataclass(frozen=True, slots=True)
class DeviceLost(Event):
    """A device is gone, silent for too long, or sends nonsense; its queues are released and the run goes on."""

    kind: ClassVar[str] = "lost"
    device: int
    slot: int
    tasks: int
    reason: str


@dataclass(frozen=True, slots=True)
class DeviceReturned(Event):
    """A lost device is back, from this slot on."""

    kind: ClassVar[str] = "returned"
    device: int
    slot: int


@dataclass(frozen=True, slots=True)
class DidAlone(Event):
    """What a device did while it was without its edge, told once it is back.

    Attributes:
        device: m.
        slot: in which it says so.
        retries: times that it asked the edge to take it back, since it said so last.
        fallbacks: tasks that it finished by itself meanwhile for want of an edge, per service.
    """

    kind: ClassVar[str] = "alone"
    device: int
    slot: int
    retries: int
    fallbacks: list[int]


@dataclass(frozen=True, slots=True)
class Ended(Event):
    """A live run is over; what the edge knows of it."""

    kind: ClassVar[str] = "end"
    arrived: list[list[int]]
    slot_overruns: int
    worst_lag_s: float
    shortfall: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TailServed(Event):
    """An edge answered a request.

    Attributes:
        model, cut: of the request.
        bytes_up, bytes_down: sizes of request and reply.
        queue_s: waiting for a free processor, seconds.
        tail_s: computing the tail, seconds.
        server_s: from the request's bytes to the output's tensors, seconds.
        request_id, sender: of the request; the sender is its name, if it has one, and the start of its client's.
        batch: requests that were computed together, this one among them.
    """

    kind: ClassVar[str] = "tail"
    model: str
    cut: int
    bytes_up: int
    bytes_down: int
    queue_s: float
    tail_s: float
    server_s: float = 0.0
    request_id: int = 0
    sender: str = ""
    batch: int = 1


@dataclass(frozen=True, slots=True)
class BatchReleased(Event):
    """An edge that computes requests together takes some for one tail, or a single one.

    Attributes:
        model, cut: of the tail.
        size: requests in the batch.
        oldest_wait_s: how long the first of them had waited, seconds.
        reason: why it left then and is not larger. ``idle``: a processor was free; ``single``: this tail has no
            batches, or not yet; ``queued``: nothing else waited for this tail; ``full``: batches get no larger;
            ``split``: it is the largest size that what waited can fill, and the rest comes next.
        dropped: requests left out because their clients no longer wait.
    """

    kind: ClassVar[str] = "batch"
    model: str
    cut: int
    size: int
    oldest_wait_s: float
    reason: str
    dropped: int


@dataclass(frozen=True, slots=True)
class Refused(Event):
    """An edge refused a request; ``status`` is that of the answer, ``message`` what the client is told.

    ``model`` is the one that was asked for, empty where the edge has none of that name.
    """

    kind: ClassVar[str] = "refused"
    status: str
    message: str
    request_id: int = 0
    sender: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Repeated(Event):
    """A client asked again with the same id, and got the answer that its first request had."""

    kind: ClassVar[str] = "repeated"
    model: str
    cut: int
    request_id: int = 0
    sender: str = ""


@dataclass(frozen=True, slots=True)
class Inferred(Event):
    """A client has a result: where its tail ran, after how many further tries."""

    kind: ClassVar[str] = "inferred"
    model: str
    cut: int
    ran_at: str
    retries: int


_KINDS: dict[str, type[Event]] = {
    cls.kind: cls
    for cls in (
        Started,
        PeriodEnded,
        TaskDone,
        DeviceLeft,
        DeviceLost,
        DeviceReturned,
        DidAlone,
        Ended,
        TailServed,
        BatchReleased,
        Refused,
        Repeated,
        Inferred,
    )
}

Observer = Callable[[Event], None]
"""Is called with one event after the other, on a thread of its own behind a ``Fanout``."""


def nobody(event: Event) -> None:
    """The observer that looks away."""


def all_of(*observers: Observer) -> Observer:
    """Return an observer that tells several, one after the other on the thread of the event."""
    if len(observers) < 2:
        return observers[0] if observers else nobody

    def tell(event: Event) -> None:
        for observer in observers:
            observer(event)

    return tell


def read_event(record: dict[str, Any]) -> Event:
    """Return the event that ``to_dict`` described.

    Raises:
        InputError: there is no such kind, or a field is missing or unknown.
    """
    fields = dict(record)
    kind = fields.pop("event", None)
    if kind not in _KINDS:
        raise InputError(f"no event is called {kind!r}; there are {', '.join(_KINDS)}")
    try:
        return _KINDS[kind](**fields)
    except TypeError as error:
        raise InputError(f"event {kind}: {error}") from None


class Fanout:
    """Hands events to observers. An observer itself: calling it returns at once. A context manager.

    Attributes:
        dropped: events that an observer lost so far, by the name it was added under.
    """

    def __init__(self) -> None:
        self._lines: list[_Line] = []

    def add(self, name: str, observer: Observer, *, most_waiting: int | None = 1024) -> Fanout:
        """Let an observer follow from now on; returns the fan-out itself.

        Args:
            name: for messages and counts.
            observer: called on a thread of its own. One that raises is told nothing more, and the log says why.
            most_waiting: events that wait for it at most, further ones are dropped; None keeps all, for an observer
                that must see a whole run.
        """
        self._lines.append(_Line(name, observer, most_waiting))
        return self

    @property
    def dropped(self) -> dict[str, int]:
        return {line.name: line.dropped for line in self._lines}

    def __call__(self, event: Event) -> None:
        for line in self._lines:
            line.put(event)

    def close(self) -> None:
        """Wait until every observer has seen what was kept for it, and end the threads."""
        for line in self._lines:
            line.close()
        for name, dropped in self.dropped.items():
            if dropped:
                logger.warning("%s was too slow for %d events, which it did not see", name, dropped)

    def __enter__(self) -> Fanout:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Line:
    """One observer's queue and thread."""

    def __init__(self, name: str, observer: Observer, most_waiting: int | None) -> None:
        self.name = name
        self.dropped = 0
        self._observer = observer
        self._waiting: queue.Queue[Event | None] = queue.Queue()
        self._most = most_waiting
        self._thread = threading.Thread(target=self._follow, name=f"splitinfer-{name}", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        if self._most is not None and self._waiting.qsize() >= self._most:
            self.dropped += 1
        else:
            self._waiting.put(event)

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _follow(self) -> None:
        while (event := self._waiting.get()) is not None:
            try:
                self._observer(event)
            except Exception:
                logger.exception("%s failed at an event and is told no more of them", self.name)
                break
        while event is not None:  # take the rest, so that nobody waits for this observer
            event = self._waiting.get()
            self.dropped += event is not None
