"""One slot of one device: real tasks in its local and its transmission queue, and the allocation of each slot."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from splitinfer.energy import transmission_energy_j
from splitinfer.energy.processor import processor_energy_j
from splitinfer.energy.transmitter import radio_power_w
from splitinfer.errors import RemoteError
from splitinfer.radio import shannon_power_w, shannon_rate_bps
from splitinfer.runtime.emulation import Clock, Job, Link, Piece
from splitinfer.runtime.exchange import Exchange
from splitinfer.runtime.loop.lines import waiting_in
from splitinfer.runtime.loop.world import DeviceWorld
from splitinfer.runtime.tracing import UNTRACED, RequestTrace, Tracing
from splitinfer.scheduling.period import PER_DEVICE, PER_STAGE, Period
from splitinfer.scheduling.rules import AllocationRule, is_compiled, within
from splitinfer.scheduling.setting import Setting
from splitinfer.simulation.choices import Choice

Floats = NDArray[np.float64]


class Service(Protocol):
    """One service of a device, from a captured model or from exported files. A task's "cut" is a place among choices.

    Attributes:
        name, fingerprint: of the model.
        last: place of the choice that keeps everything on the device.
    """

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def last(self) -> int: ...

    def at(self, place: int) -> Choice:
        """Return the cut and codec of a place."""
        ...

    def fingerprint_at(self, cut: int) -> str:
        """Return what a request for a cut carries."""
        ...

    def with_tolerance(self, tolerance: float) -> Service:
        """The same, where answers may differ by so much of the largest magnitude, as the edge says; 0 asks for bits."""
        ...

    def run_head(self, place: int, turn: int) -> tuple[Any, ...]:
        """Run the head on the input of a turn; of the last place the whole model, as leaves."""
        ...

    def run_tail(self, place: int, tensors: Sequence[Any]) -> tuple[Any, ...]:
        """Run the tail here, as leaves."""
        ...

    def is_right(self, place: int, turn: int, leaves: Sequence[Any]) -> bool:
        """Whether an answer is the whole model's, or the tail's on what the codec leaves."""
        ...

    def prepare_thread(self) -> None:
        """Called once in the thread that runs the heads."""
        ...


@dataclass(frozen=True)
class LiveTask:
    """One request.

    Attributes:
        number: counts the device's requests from 1.
        service: n.
        cut: that it was admitted with, for good.
        arrival_slot: in which it came.
        is_fallback: whether it stays here for want of an edge.
    """

    number: int
    service: int
    cut: int
    arrival_slot: int
    is_fallback: bool = False


@dataclass(frozen=True)
class Closed:
    """What a slot brought.

    Attributes:
        finished: tasks that were done here, without a tail, with the leaves of their answers.
        arrived: requests per service, shape (N,).
    """

    finished: list[tuple[LiveTask, tuple[Any, ...]]]
    arrived: NDArray[np.int64]


@dataclass
class AnswerCheck:
    """Every answer against the whole model's, bit for bit.

    Attributes:
        checked: answers.
        wrong: of them, those that are not the whole model's.
        unexpected: answers to tasks that were not waiting for one.
    """

    checked: int = 0
    wrong: int = 0
    unexpected: int = 0


class DeviceLoop:
    """The queues of one device and what happens to them in a slot.

    The order of a slot is the simulator's: ``open_slot`` observes and allocates, ``close_slot`` moves what is done
    to the next queue and admits the requests of the slot.

    Args:
        setting: of the run.
        device: m.
        services: the device's models.
        world: gains and requests.
        clock: runs the heads, one queue per service.
        link: sends what crosses the cuts, one queue per service.
        exchange: builds the requests.
        rule: decides frequencies and rates; started with the setting.
        tracing: writes a span of each task.
        keeps_crossing: keep what crosses the cut of every task until it is answered, for :meth:`go_alone`.

    Attributes:
        check: of the answers.
        fallbacks: tasks that were finished here for want of an edge, per service.
    """

    def __init__(
        self,
        setting: Setting,
        device: int,
        services: Sequence[Service],
        world: DeviceWorld,
        clock: Clock,
        link: Link,
        exchange: Exchange,
        rule: AllocationRule,
        *,
        tracing: Tracing | None = None,
        keeps_crossing: bool = False,
    ) -> None:
        self.check = AnswerCheck()
        self.fallbacks = [0] * len(services)
        self._setting = setting
        self._device = device
        self._services = services
        self._world = world
        self._clock = clock
        self._link = link
        self._exchange = exchange
        self._rule = rule
        self._numbers = itertools.count(1)
        self._under_way: dict[int, LiveTask] = {}
        self._lock = threading.Lock()
        self._sums, self._slots = self._nothing(), 0
        self._tracing = tracing
        self._traces: dict[int, RequestTrace] = {}
        self._keeps_crossing = keeps_crossing
        self._crossing: dict[int, tuple[Any, ...]] = {}
        self._left: set[int] = set()
        self._is_alone = False

    @property
    def under_way(self) -> int:
        """Tasks without an answer."""
        return len(self._under_way)

    def under_way_by_service(self) -> list[int]:
        """The same per service."""
        with self._lock:
            tasks = [task.service for task in self._under_way.values()]
        return [tasks.count(service) for service in range(len(self._services))]

    def go_alone(self) -> int:
        """Do without the edge from now on: finish here what was meant for it, from what crosses the cuts.

        The tails enter the local queues with the cycles that they take; nothing is sent any more. Returns how many.
        """
        self._is_alone = True
        self._link.clear()
        with self._lock:
            stranded = [self._under_way[number] for number in sorted(self._left & self._under_way.keys())]
            self._left.clear()
        for task in stranded:
            self._finish_here(task)
        return len(stranded)

    def end_traces(self) -> None:
        """End the spans of tasks that have no answer."""
        while self._traces:
            _, trace = self._traces.popitem()
            trace.failed(RemoteError("under way when the run ended", status="CANCELLED"))

    def end_alone(self) -> None:
        """Send to the edge again."""
        self._is_alone = False

    def open_slot(self, slot: int) -> list[Piece]:
        """Allocate for the slot and spend what they give; returns the bytes that leave in it."""
        setting, device = self._setting, self._device
        gain = self._world.gain(slot)
        cycles, bits = self._clock.backlog_cycles(), self._link.backlog_bits()
        frequency, rate, power = self._allocate(slot, cycles, bits, gain)
        max_rate = shannon_rate_bps(
            float(setting.max_power_w[device]), gain, setting.device_bandwidth_hz, setting.noise_w_per_hz
        )
        total_hz, total_bps = float(frequency.sum()), float(rate.sum())
        local_j = processor_energy_j(setting.slot_s, setting.processor, device, total_hz)
        sent_j = transmission_energy_j(setting.slot_s, radio_power_w(setting.radio, device, power, total_bps))
        sums = self._sums
        self._slots += 1
        sums.backlog[:2, 0] += (cycles, bits)
        sums.service_rate[:2, 0] += (frequency, rate)
        sums.power_w[0] += power
        sums.max_rate_bps[0] += max_rate
        sums.local_energy_j[0] += local_j
        sums.transmission_energy_j[0] += sent_j
        self._clock.open_slot(frequency)
        return self._link.open_slot(rate, power)

    def _allocate(self, slot: int, cycles: Floats, bits: Floats, gain: float) -> tuple[Floats, Floats, float]:
        """Ask the rule: f^l and r per service, and p. Empty queues get nothing, without asking."""
        setting, device, rule = self._setting, self._device, self._rule
        frequency, rate, power = np.zeros_like(cycles), np.zeros_like(bits), 0.0
        rule.observe(device, gain)
        if cycles.any():
            wanted = rule.local(device, waiting_in(self._clock.lines(), slot))
            frequency = within(rule, wanted, cycles / setting.slot_s, float(setting.max_local_frequency_hz[device]))
        if bits.any():
            wanted, power = rule.transmission(device, waiting_in(self._link.lines(), slot), gain)
            limit_w = min(float(power), float(setting.max_power_w[device]))
            link = gain, setting.device_bandwidth_hz, setting.noise_w_per_hz
            rate = within(rule, wanted, bits / setting.slot_s, lambda: shannon_rate_bps(limit_w, *link))
            if not is_compiled(rule):  # those know the least power themselves
                total = float(rate.sum())
                power = min(limit_w, float(shannon_power_w(total, *link))) if total > 0 else 0.0
        return frequency, rate, power

    def close_slot(self, slot: int, cuts: Sequence[int]) -> Closed:
        """Move on what is done at the end of the slot, and admit the slot's requests with ``cuts``."""
        finished = []
        for _, job in self._clock.close_slot():
            task = job.key
            assert isinstance(task, LiveTask)
            bits = self._work(self._setting.transmission_bits, task)
            if bits > 0 and self._is_alone:
                self._finish_here(task)
            elif bits > 0:
                self._send(task, job.result, bits)
            else:
                finished.append((task, job.result))
                self.fallbacks[task.service] += task.is_fallback
                self._answered(task, job.result)
        arrived = self._world.requests(slot)[: len(self._services)]
        for wanted, count in enumerate(arrived.tolist()):
            for _ in range(count):
                self._admit(LiveTask(next(self._numbers), wanted, int(cuts[wanted]), slot, self._is_alone))
        return Closed(finished, arrived)

    def period_means(self, cuts: Sequence[int]) -> Period:
        """Return the means over the slots opened since the last call, arrays of one device; ``cuts`` were in force.

        What happens at the edge is zero here.
        """
        sums, slots = self._sums, self._slots
        self._sums, self._slots = self._nothing(), 0
        means = {name: getattr(sums, name) / slots for name in (*PER_STAGE, *PER_DEVICE)}
        return Period(slots, np.array([cuts], np.int64), **means)

    def _nothing(self) -> Period:
        nothing: Period = Period.empty(np.zeros((1, len(self._services)), np.int64))
        return nothing

    def receive(self, number: int, leaves: Sequence[Any]) -> LiveTask | None:
        """Take the answer of the edge to one task; returns the task, or None if none was waiting. Thread-safe."""
        with self._lock:
            task = self._under_way.get(number)
        if task is None:
            self.check.unexpected += 1
            return None
        self._answered(task, leaves, ran_at="edge")
        return task

    def _answered(self, task: LiveTask, leaves: Sequence[Any], *, ran_at: str = "device") -> None:
        right = self._services[task.service].is_right(task.cut, task.number, leaves)
        with self._lock:
            if self._under_way.pop(task.number, None) is None:
                self.check.unexpected += 1
                return
            self._crossing.pop(task.number, None)
            self._left.discard(task.number)
            self.check.checked += 1
            self.check.wrong += 0 if right else 1
        self._traces.pop(task.number, UNTRACED).answered(ran_at, is_right=right)

    def _admit(self, task: LiveTask) -> None:
        with self._lock:
            self._under_way[task.number] = task
        if self._tracing is not None:
            service = self._services[task.service]
            self._traces[task.number] = self._tracing.task(
                service.name,
                service.at(task.cut).cut,
                device=self._device,
                service=task.service,
                number=task.number,
                slot=task.arrival_slot,
            )
        cycles = self._work(self._setting.local_cycles, task)
        if cycles > 0:
            self._clock.submit(task.service, Job(task, lambda: self._run_head(task)), cycles)
        else:
            bits = self._work(self._setting.transmission_bits, task)
            request = self._run_head(task)  # nothing to compute: the input itself crosses
            assert isinstance(request, bytes)
            self._send(task, request, bits)

    def _send(self, task: LiveTask, request: bytes, bits: float) -> None:
        with self._lock:
            self._left.add(task.number)
        self._link.submit(task.service, task, request, bits)

    def _finish_here(self, task: LiveTask) -> None:
        """Put the tail of a task into its local queue; the task counts as one of the last cut from now on."""
        last = replace(task, cut=self._services[task.service].last, is_fallback=True)
        cycles = self._work(self._setting.local_cycles, last) - self._work(self._setting.local_cycles, task)
        self._clock.submit(task.service, Job(last, lambda: self._run_tail(task)), cycles)

    def _run_tail(self, task: LiveTask) -> tuple[Any, ...]:
        with self._stage(task, "tail"):
            return self._services[task.service].run_tail(task.cut, self._crossing[task.number])

    @contextmanager
    def _stage(self, task: LiveTask, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._traces.get(task.number, UNTRACED).stage(name, time.perf_counter() - start)

    def _run_head(self, task: LiveTask) -> bytes | tuple[Any, ...]:
        """Return the bytes of the request for the tail; or the answer, where there is no tail."""
        service = self._services[task.service]
        with self._stage(task, "head"):
            tensors = service.run_head(task.cut, task.number)
        if task.cut == service.last:
            return tensors
        if self._keeps_crossing:
            with self._lock:
                self._crossing[task.number] = tensors
        choice = service.at(task.cut)
        return self._exchange.request(
            service.name,
            service.fingerprint_at(choice.cut),
            choice.cut,
            tensors,
            task.number,
            choice.codec or None,
            self._traces.get(task.number, UNTRACED).context,
        )

    def _work(self, table: Floats, task: LiveTask) -> float:
        return float(table[self._device, task.service, task.cut])
