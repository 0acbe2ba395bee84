"""A processor whose frequency is set per slot, and its emulation on a host whose clock cannot be set."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from splitinfer.runtime.emulation.work_queue import Line, WorkQueue

Floats = NDArray[np.float64]

_KEY = attrgetter("key")


@dataclass(eq=False)
class Job:
    """Real work that stands for some cycles.

    Attributes:
        key: whose work it is.
        run: does it, on a thread of the clock; what it returns becomes ``result``.
        result: of ``run``, once the clock has given the job back.
    """

    key: Hashable
    run: Callable[[], Any]
    result: Any = None
    _future: Future[Any] | None = field(default=None, repr=False)
    _began_s: float = field(default=0.0, repr=False)
    _ended_s: float = field(default=0.0, repr=False)
    _due_s: float = field(default=0.0, repr=False)
    _due_slot: int = field(default=0, repr=False)


@dataclass
class Shortfall:
    """Where the host was slower than the processor that it stands for.

    Attributes:
        jobs: jobs of all.
        late_jobs: jobs whose cycles were worked off before the host had done the real work.
        late_slots: slots by which they were given back late, summed.
        late_s: time by which the host was late, summed, seconds of the wall clock.
        worst_s: of one job.
        host_s: time that the host computed, summed, seconds of the wall clock.
    """

    jobs: int = 0
    late_jobs: int = 0
    late_slots: int = 0
    late_s: float = 0.0
    worst_s: float = 0.0
    host_s: float = 0.0


class Clock(Protocol):
    """A processor with one queue of jobs per service, served first come first served.

    A slot is one call of ``open_slot`` followed by one of ``close_slot``. Hardware with a settable frequency sets it in
    ``open_slot`` and runs the jobs for as long as it lasts.

    Attributes:
        shortfall: where the host was too slow.
    """

    shortfall: Shortfall

    def backlog_cycles(self) -> Floats:
        """Cycles left per queue."""

    def lines(self) -> list[Line]:
        """What waits in each queue."""

    def submit(self, queue: int, job: Job, cycles: float) -> None:
        """Put a job at the end of a queue; it can be served from the next slot on."""

    def drop(self, queue: int) -> int:
        """Forget the jobs of a queue, also those that are being run; returns how many there were."""

    def open_slot(self, frequency_hz: Floats) -> None:
        """Work at these frequencies, one per queue, for one slot."""

    def close_slot(self) -> list[tuple[int, Job]]:
        """Return the queue and job of what is done by the end of the slot, with results.

        Raises:
            Exception: what a job raised.
        """


class MakeClock(Protocol):
    """What makes the clock of a run, as ``EmulatedClock`` does: the arguments are its own."""

    def __call__(self, queues: int, *, slot_s: float, executor: Executor, wait_s: float = 0.0) -> Clock: ...


class EmulatedClock:
    """Paces real work by virtual cycles: a job is given back when they are worked off, and never sooner.

    The real work starts in the slot in which a job gets its first cycles. If it is not done when the cycles are, the
    job is late: it is given back at the end of the first slot by which it is done, and ``shortfall`` says so.

    Args:
        queues: number of queues.
        slot_s: virtual length of a slot, seconds.
        executor: runs the jobs.
        wait_s: longest wait of ``close_slot`` for late jobs, seconds of the wall clock. With 0 time goes on and late
            jobs are carried into later slots; with a long wait time stands still instead, so that the run stays slot
            by slot what the simulator computes.
    """

    def __init__(self, queues: int, *, slot_s: float, executor: Executor, wait_s: float = 0.0) -> None:
        self.shortfall = Shortfall()
        self._queues: list[WorkQueue[Job]] = [WorkQueue() for _ in range(queues)]
        self._due: list[deque[Job]] = [deque() for _ in range(queues)]
        self._slot_s = slot_s
        self._executor = executor
        self._wait_s = wait_s
        self._slot = 0

    def backlog_cycles(self) -> Floats:
        return np.array([queue.backlog for queue in self._queues])

    def lines(self) -> list[Line]:
        return [queue.line(_KEY) for queue in self._queues]

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues) + sum(len(due) for due in self._due)

    def submit(self, queue: int, job: Job, cycles: float) -> None:
        self._queues[queue].enter(job, cycles)

    def drop(self, queue: int) -> int:
        dropped = len(self._queues[queue]) + len(self._due[queue])
        for job in self._queues[queue]:
            if job._future is not None:
                job._future.cancel()
        self._queues[queue], self._due[queue] = WorkQueue(), deque()
        return dropped

    def open_slot(self, frequency_hz: Floats) -> None:
        for index in np.flatnonzero(frequency_hz):
            for served in self._queues[index].serve(float(frequency_hz[index]) * self._slot_s):
                if served.item._future is None:
                    served.item._future = self._executor.submit(self._execute, served.item)
                if served.is_done:
                    served.item._due_slot = self._slot
                    self._due[index].append(served.item)

    def close_slot(self) -> list[tuple[int, Job]]:
        now = time.perf_counter()
        waiting = [job for due in self._due for job in due]
        for job in waiting:
            if not job._due_s:
                job._due_s = now
        pending = [job._future for job in waiting if job._future is not None and not job._future.done()]
        if pending and self._wait_s > 0:
            wait(pending, timeout=self._wait_s)
        done = []
        for index, due in enumerate(self._due):
            while due and due[0]._future is not None and due[0]._future.done():
                job = due.popleft()
                job.result = job._future.result()  # type: ignore[union-attr]
                self._note(job)
                done.append((index, job))
        self._slot += 1
        return done

    def _execute(self, job: Job) -> Any:
        job._began_s = time.perf_counter()
        try:
            return job.run()
        finally:
            job._ended_s = time.perf_counter()

    def _note(self, job: Job) -> None:
        shortfall = self.shortfall
        shortfall.jobs += 1
        shortfall.host_s += job._ended_s - job._began_s  # here, on one thread: workers would lose each other's sums
        late_s = job._ended_s - job._due_s
        if late_s > 0:
            shortfall.late_jobs += 1
            shortfall.late_slots += self._slot - job._due_slot
            shortfall.late_s += late_s
            shortfall.worst_s = max(shortfall.worst_s, late_s)
