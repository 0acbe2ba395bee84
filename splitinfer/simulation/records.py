"""What goes into and comes out of one call of the engine, as plain records of arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splitinfer.scheduling.period import Period

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STAGES = ("local", "transmission", "edge")
"""Order of the stage axis, of length 3, in every array that has one."""


@dataclass(frozen=True, eq=False)
class Arrivals:
    """New tasks of a call, sparse: entry i says that ``count[i]`` tasks of one service arrive in one slot.

    Entries of one environment are contiguous and ordered by slot. All arrays have shape (A,).

    Attributes:
        environment: index of the environment.
        slot: slot within the call, from 0.
        device, service: m and n.
        count: number of tasks, at least 1.
    """

    environment: Ints
    slot: Ints
    device: Ints
    service: Ints
    count: Ints

    @classmethod
    def from_counts(cls, counts: NDArray[np.integer]) -> Arrivals:
        """From dense counts, (T, M, N) for one environment or (E, T, M, N)."""
        dense = counts[None] if counts.ndim == 3 else counts
        environment, slot, device, service = np.nonzero(dense)
        return cls(environment, slot, device, service, dense[environment, slot, device, service].astype(np.int64))

    @classmethod
    def from_events(
        cls,
        slot: ArrayLike,
        device: ArrayLike,
        service: ArrayLike,
        *,
        count: ArrayLike = 1,
        environment: ArrayLike = 0,
    ) -> Arrivals:
        """From events in any order."""
        columns = np.broadcast_arrays(*(np.asarray(c, np.int64) for c in (environment, slot, device, service, count)))
        order = np.lexsort((columns[1], columns[0]))
        return cls(*(np.ascontiguousarray(column[order]) for column in columns))


@dataclass(frozen=True, eq=False)
class FinishedTasks:
    """Every task that was finished in a call, in order of finishing within its environment; arrays of shape (L,).

    Attributes:
        environment, device, service: whose task it was.
        arrival_slot, finish_slot: t and u on the environment's clock.
        cut: the cut that the task was admitted with.
        latency_s: (u + 1 - t)·tau, and the answer's way back where the world has one.
    """

    environment: Ints
    device: Ints
    service: Ints
    arrival_slot: Ints
    finish_slot: Ints
    cut: Ints
    latency_s: Floats

    def __len__(self) -> int:
        return len(self.device)


@dataclass(frozen=True, eq=False)
class Trace:
    """Every ``trace_every``-th slot of a call in full, S samples.

    Attributes:
        slot: (E, S), on the environment's clock.
        backlog: (E, S, 3, M, N), Q^l, Q^t, Q^e at the start of the slot.
        service_rate: (E, S, 3, M, N), f^l, r, f^e in use.
        power_w: (E, S, M), p in use.
    """

    slot: Ints
    backlog: Floats
    service_rate: Floats
    power_w: Floats


@dataclass(frozen=True, eq=False, kw_only=True)
class PeriodStatistics(Period):
    """What happened in the T slots of one call: the means of ``Period`` for E environments, and what only we know.

    Attributes:
        work_in, work_served: (E, 3, M, N), work that entered and was served in each stage.
        arrived, finished: (E, M, N), numbers of tasks.
        tasks: the finished tasks one by one.
        trace: per-slot record, if asked for.
    """

    work_in: Floats
    work_served: Floats
    arrived: Ints
    finished: Ints
    tasks: FinishedTasks
    trace: Trace | None = None
