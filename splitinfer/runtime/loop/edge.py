"""One slot of the edge: an edge queue per device and service, the allocation each slot, the policy each period."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from splitinfer.errors import InputError
from splitinfer.runtime.emulation import Clock, Job
from splitinfer.runtime.loop.lines import waiting_in
from splitinfer.runtime.loop.telemetry import take
from splitinfer.scheduling.observation import Observation, Setting
from splitinfer.scheduling.period import Period
from splitinfer.scheduling.policy import Cuts, Policy, checked_cuts
from splitinfer.scheduling.rules import AllocationRule, within
from splitinfer.wire import splitinfer_pb2 as pb

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class EdgeTask:
    """A task whose request is on its way to the edge, or there.

    Attributes:
        device, service: m and n.
        number: the device's own.
        cut: that it was admitted with.
        arrival_slot: in which it came to the device.
    """

    device: int
    service: int
    number: int
    cut: int
    arrival_slot: int


@dataclass(frozen=True)
class Answer:
    """What the tail of a task gave.

    Attributes:
        reply: bytes of an ``InferReply``.
        batch: requests that were computed together.
    """

    reply: bytes
    batch: int


class UsedNumbers:
    """Numbers of tasks that a device has used, as ranges: one for each gap that a task leaves until it is done.

    A device counts its tasks, so that a run of any length takes as much as its open tasks, and no number is forgotten.

    Args:
        max_gaps: most gaps that are kept.
    """

    def __init__(self, max_gaps: int) -> None:
        self._max_gaps = max_gaps
        self._starts: list[int] = []
        self._ends: list[int] = []  # each behind its range

    def __len__(self) -> int:
        """Ranges that are kept."""
        return len(self._starts)

    def add(self, number: int) -> bool:
        """Take note of a number; False if it was used before.

        Raises:
            InputError: more gaps than are kept.
        """
        after = bisect_right(self._starts, number)
        before = after - 1
        if before >= 0 and number < self._ends[before]:
            return False
        joins_left = before >= 0 and self._ends[before] == number
        joins_right = after < len(self._starts) and self._starts[after] == number + 1
        if joins_left and joins_right:
            self._ends[before] = self._ends.pop(after)
            del self._starts[after]
        elif joins_left:
            self._ends[before] = number + 1
        elif joins_right:
            self._starts[after] = number
        elif len(self._starts) > self._max_gaps:
            raise InputError(f"more than {self._max_gaps:,} gaps in the numbers of its tasks (max_open_tasks)")
        else:
            self._starts.insert(after, number)
            self._ends.insert(after, number + 1)
        return True

    def clear(self) -> None:
        """Forget all: the device begins anew."""
        self._starts.clear()
        self._ends.clear()


class RequestAssembly:
    """Puts the pieces of requests together as they come in over the emulated link.

    Args:
        max_message_bytes: of one request.
        max_pending_bytes: of all requests at the edge, complete or not: ``fullest`` says who holds most of more.
    """

    def __init__(self, *, max_message_bytes: int, max_pending_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._max_pending_bytes = max_pending_bytes
        self._pending_bytes = 0
        self._lock = threading.Lock()
        self._parts: dict[tuple[int, int], bytearray] = {}
        self._held_bytes: dict[tuple[int, int], int] = {}

    def add(self, task: EdgeTask, offset: int, message_bytes: int, data: bytes) -> bytes | None:
        """Take one piece; returns the whole request with its last one.

        Raises:
            InputError: it does not follow the piece before, or is over a limit.
        """
        who = f"device {task.device}, task {task.number}"
        if not 0 < message_bytes <= self._max_message_bytes:
            raise InputError(
                f"{who}: a request of {message_bytes} bytes; max_message_bytes is {self._max_message_bytes}"
            )
        key = task.device, task.number
        held = self._parts.get(key)
        have = 0 if held is None else len(held)
        if offset != have or not 0 < len(data) <= message_bytes - have:
            raise InputError(f"{who}: bytes {offset}..{offset + len(data)} follow byte {have} of {message_bytes}")
        with self._lock:
            self._pending_bytes += len(data)
            self._held_bytes[key] = self._held_bytes.get(key, 0) + len(data)
        if held is None:
            held = self._parts[key] = bytearray()
        held += data
        if len(held) < message_bytes:
            return None
        return bytes(self._parts.pop(key))

    def fullest(self) -> int | None:
        """Return the device that holds most, where all together hold too much. Thread-safe."""
        if self._pending_bytes <= self._max_pending_bytes:
            return None
        held: Counter[int] = Counter()
        with self._lock:
            for (device, _), count in self._held_bytes.items():
                held[device] += count
        return max(held, key=held.__getitem__, default=None)

    def release(self, task: EdgeTask) -> None:
        """Note that a request is answered. Thread-safe."""
        with self._lock:
            self._pending_bytes -= self._held_bytes.pop((task.device, task.number), 0)

    def drop(self, device: int) -> None:
        """Forget every request of a device. Thread-safe."""
        with self._lock:
            for key in [key for key in self._held_bytes if key[0] == device]:
                self._pending_bytes -= self._held_bytes.pop(key)
            for key in [key for key in self._parts if key[0] == device]:
                del self._parts[key]


class EdgeLoop:
    """The edge queues of all devices and what happens to them in a slot.

    Args:
        setting: of the run.
        policy: chooses the cuts; already reset.
        clock: runs the tails, one queue per (m, n) in row-major order.
        rule: decides the frequencies; started with the setting.
    """

    def __init__(self, setting: Setting, policy: Policy, clock: Clock, rule: AllocationRule) -> None:
        self._setting = setting
        self._policy = policy
        self._clock = clock
        self._rule = rule
        self._shape = setting.active.shape
        self._queue_sum = np.zeros(self._shape)
        self._frequency_sum = np.zeros(self._shape)
        self._slots = 0
        self.cuts: Cuts = checked_cuts(policy.cuts(Observation.first(setting)), setting)

    def open_slot(self, slot: int) -> None:
        """Allocate for the slot and spend what that gives."""
        setting = self._setting
        backlog = self._clock.backlog_cycles()
        frequency = np.zeros_like(backlog)
        if backlog.any():  # empty queues get nothing, without asking
            waiting = waiting_in(self._clock.lines(), slot).shaped(self._shape)
            wanted = np.asarray(self._rule.edge(waiting)).reshape(-1)
            frequency = within(self._rule, wanted, backlog / setting.slot_s, float(setting.max_edge_frequency_hz))
            self._queue_sum += backlog.reshape(self._shape)
            self._frequency_sum += frequency.reshape(self._shape)
        self._slots += 1
        self._clock.open_slot(frequency)

    def close_slot(self) -> list[tuple[EdgeTask, Answer | Exception]]:
        """Return the tasks that are done at the end of the slot, with their answers or why there are none."""
        done = []
        for _, job in self._clock.close_slot():
            assert isinstance(job.key, EdgeTask)
            done.append((job.key, job.result))
        return done

    def admit(self, task: EdgeTask, run: Callable[[], Answer | Exception]) -> None:
        """Put a task whose request is complete into its queue; it can be served from the next slot on."""
        cycles = float(self._setting.edge_cycles[task.device, task.service, task.cut])
        self._clock.submit(task.device * self._shape[1] + task.service, Job(task, run), cycles)

    def release(self, device: int) -> int:
        """Empty the queues of a device that is gone; returns how many tasks waited there."""
        services = self._shape[1]
        return sum(self._clock.drop(device * services + service) for service in range(services))

    def end_period(self, telemetry: Sequence[pb.Telemetry]) -> Period:
        """Return the means over the slots opened since the last call: the devices' telemetry with the edge's own."""
        period: Period = Period.empty(self.cuts)
        for device, message in enumerate(telemetry):
            take(message, period, device)
        period.backlog[2] = self._queue_sum / self._slots
        period.service_rate[2] = self._frequency_sum / self._slots
        period = replace(period, slots=self._slots)
        self._queue_sum, self._frequency_sum, self._slots = np.zeros(self._shape), np.zeros(self._shape), 0
        return period

    def choose_cuts(self, period: Period) -> Cuts:
        """Ask the policy for the coming period, given the one before."""
        self.cuts = checked_cuts(self._policy.cuts(Observation(self._setting, period)), self._setting)
        return self.cuts


def row(cuts: Cuts, device: int, services: int) -> Sequence[int]:
    """Return the cuts of one device's services as Python numbers."""
    numbers: list[int] = cuts[device, :services].tolist()
    return numbers
