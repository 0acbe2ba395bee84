"""A queue of real tasks whose work is counted in virtual cycles or bits: the simulator's queue, with things in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from splitinfer.errors import InputError
from splitinfer.simulation.kernel import RESUM_LIMIT, ROUNDING

Item = TypeVar("Item")


@dataclass(frozen=True)
class Served(Generic[Item]):
    """What one slot did for one task.

    Attributes:
        item: the task.
        start: share of its work that was done before, 0..1.
        stop: share that is done now; exactly 1 when nothing is left.
    """

    item: Item
    start: float
    stop: float

    @property
    def is_done(self) -> bool:
        return self.stop == 1.0


class Line(NamedTuple):
    """What waits in one queue.

    Attributes:
        work: left of all tasks, cycles or bits.
        tasks: their number.
        head_work: left of the task at the head of the line; 0 where nobody waits.
        head: key of that task, or None.
    """

    work: float
    tasks: int
    head_work: float
    head: Any


@dataclass
class _Entry(Generic[Item]):
    item: Item
    work: float
    remaining: float


class WorkQueue(Generic[Item]):
    """First come, first served, with the same arithmetic as the simulator's compiled loop.

    Attributes:
        backlog: work left of all tasks.
        work_in: work that ever entered.
        work_served: work that was ever served.
    """

    def __init__(self) -> None:
        self.backlog = 0.0
        self.work_in = 0.0
        self.work_served = 0.0
        self._entries: deque[_Entry[Item]] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def line(self, key: Callable[[Item], Any]) -> Line:
        """Return what waits here, the task at the head by its key."""
        entries = self._entries
        if not entries:
            return Line(self.backlog, 0, 0.0, None)
        head = entries[0]
        return Line(self.backlog, len(entries), head.remaining, key(head.item))

    def __iter__(self) -> Iterator[Item]:
        return (entry.item for entry in self._entries)

    def enter(self, item: Item, work: float) -> None:
        """Put a task at the end.

        Raises:
            InputError: there is no work in it; such a task skips the queue.
        """
        if not work > 0:
            raise InputError(f"a task enters a queue with work above 0, not {work}")
        self.backlog = self.backlog + work if self._entries else work
        self.work_in += work
        self._entries.append(_Entry(item, work, work))

    def serve(self, work: float) -> list[Served[Item]]:
        """Spend some work on the oldest tasks, in order; returns those that got any. Done ones have left."""
        touched: list[Served[Item]] = []
        left = 0
        while self._entries and work > 0:
            entry = self._entries[0]
            start = 1.0 - entry.remaining / entry.work
            if entry.remaining - work > ROUNDING * entry.work:
                entry.remaining -= work
                self.backlog -= work
                self.work_served += work
                touched.append(Served(entry.item, start, min(1.0 - entry.remaining / entry.work, _BELOW_ONE)))
                break
            work = max(0.0, work - entry.remaining)
            self.backlog -= entry.remaining
            self.work_served += entry.remaining
            self._entries.popleft()
            left += 1
            touched.append(Served(entry.item, start, 1.0))
        if left and len(self._entries) <= RESUM_LIMIT:
            # As in the simulator: subtraction leaves rounding behind, which a queue that runs empty must not keep.
            self.backlog = 0.0
            for entry in self._entries:  # not sum(), which rounds differently from one Python to the next
                self.backlog += entry.remaining
        elif not left and len(self._entries) == 1:
            self.backlog = self._entries[0].remaining
        return touched


_BELOW_ONE = 1.0 - 2.0**-53
