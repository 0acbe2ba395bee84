"""Settings of a live run."""

from __future__ import annotations

from dataclasses import dataclass

from splitinfer.errors import InputError
from splitinfer.runtime.batch_sizes import check_batch

LONGEST_S = 1e6
"""Longest wait in a live run; no clock nor condition overflows with it, and devices take no more from an edge."""

LEAST_TIME_SCALE, MOST_TIME_SCALE = 1e-6, 1e6
"""What time scales lie between: a slot stays longer than nothing and shorter than a wait may be."""


@dataclass(frozen=True)
class LoopSettings:
    """How a live run goes; the edge decides, and tells the devices.

    Attributes:
        slots: length of the run.
        seed: of arrivals, channel and the policy's randomness, as in ``simulate``.
        time_scale: wall-clock time per virtual time: 1 is real time, 0.1 ten times faster.
        patience_s: longest wait, seconds of the wall clock, for real work that is late (a head, a tail) and for cuts
            that are late. With 0 time goes on and what is late is carried into later slots; with a long wait time
            stands still instead, and the run equals the simulation slot by slot. Both are counted and reported.
        starts_in_s: from the last device's hello to the first slot.
        join_s: longest wait for the devices.
        silence_s: longest silence of a device or the edge in the run.
        lease_s: how long a silent device keeps its place. Then, or at once when it goes away or sends nonsense, its
            queues at the edge are released and the others go on without it; it can come back. None: a lost device ends
            the run.
        tail_workers: tails computed at the same time at the edge.
        batch: most requests for one tail that the edge computes together; with more than 1 answers are equal to a
            tolerance, not to the bit.
        torch_threads: threads inside one operation.
        max_pending_bytes: bytes of requests that wait at the edge; more ends the run.
        p95_target_s: that whoever watches holds each service's 95th percentile of latency against, seconds. It steers
            nothing: a live run keeps the scenario's energy weights.
        max_open_tasks: tasks of a device that are not done with, and gaps that it may leave in their numbers; a device
            with more is lost.
    """

    slots: int
    seed: int = 0
    time_scale: float = 1.0
    patience_s: float = 0.0
    starts_in_s: float = 0.3
    join_s: float = 300.0
    silence_s: float = 60.0
    lease_s: float | None = None
    tail_workers: int = 1
    batch: int = 1
    torch_threads: int = 1
    max_pending_bytes: int = 2 << 30
    max_open_tasks: int = 100_000
    p95_target_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("slots", "tail_workers", "torch_threads", "max_pending_bytes", "max_open_tasks"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} must be a whole number of at least 1, not {value!r}")
        check_batch(self.batch)
        if not 0 <= self.seed < 1 << 63:
            raise InputError(f"seed must be 0 or more, not {self.seed}")
        if not LEAST_TIME_SCALE <= self.time_scale <= MOST_TIME_SCALE:
            span = f"from {LEAST_TIME_SCALE:g} to {MOST_TIME_SCALE:g}"
            raise InputError(f"time_scale must be {span}, not {self.time_scale}")
        for name in ("join_s", "silence_s", "lease_s", "p95_target_s"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= LONGEST_S:
                raise InputError(f"{name} must be above 0 and at most {LONGEST_S:g}, not {value}")
        for name in ("patience_s", "starts_in_s"):
            value = getattr(self, name)
            if not 0 <= value <= LONGEST_S:
                raise InputError(f"{name} must be from 0 to {LONGEST_S:g}, not {value}")
