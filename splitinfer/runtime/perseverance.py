"""What a client does when the edge does not answer: tries again, finishes the task itself, waits, or gives up.

Nothing here sends or waits, so that the clients with and without asyncio share it. Tries are our own and not gRPC's,
which silently makes none for messages over 256 KiB. They repeat the request's id, which the edge computes once.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Literal, get_args

from splitinfer.errors import DeadlineError, EdgeUnavailableError, InputError, RemoteError, SplitInferError
from splitinfer.runtime.settings import ClientSettings

OnFailure = Literal["fail", "fallback", "wait"]
"""``fail`` raises the error; ``fallback`` runs the tail here, on what crosses the cut; ``wait`` tries without end."""

_ON_FAILURE = frozenset(get_args(OnFailure))
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0


def checked_on_failure(value: str) -> OnFailure:
    """Return the value.

    Raises:
        InputError: it is none of fail, fallback, wait.
    """
    if value not in _ON_FAILURE:
        raise InputError(f"on_failure must be one of {', '.join(get_args(OnFailure))}, not {value!r}")
    return value  # type: ignore[return-value]


class Breaker:
    """Keeps tasks away from an edge that has failed several in a row, but for a probe now and then; or that is busy.

    The time to the next probe doubles with each that fails, and is drawn around its mean, so that the devices of an
    edge that comes back do not come back all at once. Thread-safe.

    Args:
        failures: in a row that open it.
        probe_s: mean time to the first probe, seconds.
        longest_probe_s: mean time between probes at most, seconds.
        clock, draw: of the time, and of numbers from 0 to 1.

    Attributes:
        is_calm: nothing is known against sending: the edge has neither failed since its last answer nor asked for rest.
    """

    def __init__(
        self,
        failures: int,
        probe_s: float,
        longest_probe_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._most = failures
        self._first_s = probe_s
        self._longest_s = longest_probe_s
        self._clock = clock
        self._draw = draw
        self._lock = threading.Lock()
        self._failures = 0
        self._probe_at = 0.0
        self._busy_until = 0.0
        self.is_calm = True

    @classmethod
    def of(cls, settings: ClientSettings) -> Breaker:
        """Return the breaker that settings describe."""
        return cls(settings.breaker_failures, settings.probe_s, settings.longest_probe_s)

    @property
    def is_open(self) -> bool:
        """Whether tasks stay here."""
        return self._failures >= self._most

    def admits(self) -> bool:
        """Whether a task may go to the edge now; when a probe is due, one may."""
        with self._lock:
            if not self.is_open:
                return True
            if self._clock() < self._probe_at:
                return False
            self._probe_at = self._clock() + self._pause_s()  # until this one has said how it went
            return True

    @property
    def busy_s(self) -> float:
        """For how long the edge has asked to be left alone still, seconds."""
        return max(0.0, self._busy_until - self._clock()) if self._busy_until else 0.0

    def refused(self, retry_after_s: float) -> None:
        """Note that the edge is busy and when it may be asked again; the devices that it told so come one by one.

        Whatever it says, it is asked again after ``longest_probe_s``.
        """
        with self._lock:
            self.is_calm = False
            self._busy_until = self._clock() + min(retry_after_s, self._longest_s) * (1.0 + self._draw() / 2)

    def succeeded(self) -> None:
        """Note that the edge has answered."""
        with self._lock:
            self._failures = 0
            self.is_calm = self._busy_until <= self._clock()

    def failed(self) -> None:
        """Note that a task has failed at the edge."""
        with self._lock:
            self.is_calm = False
            self._failures += 1
            if self.is_open:
                self._probe_at = self._clock() + self._pause_s()

    def _pause_s(self) -> float:
        doublings = min(self._failures - self._most, 30)
        return min(self._longest_s, self._first_s * 2.0**doublings) * (0.5 + self._draw())


class _HeldOffError(RemoteError):
    """The edge was not asked."""


class Attempts:
    """The tries of one task.

    Args:
        settings: deadlines and number of tries.
        on_failure: what follows the last.
        breaker: of the edge; asked only by tasks that can be finished here.
        since_s: ``time.perf_counter()`` when the first try began; now by default.

    Attributes:
        on_failure: as given.
        retries: tries after the first.
        failure: why the last try failed.
    """

    __slots__ = ("_breaker", "_ends", "_settings", "failure", "on_failure", "retries")

    def __init__(
        self, settings: ClientSettings, on_failure: OnFailure, breaker: Breaker, since_s: float | None = None
    ) -> None:
        self.on_failure = on_failure
        self.retries = 0
        self.failure: SplitInferError | None = None
        self._settings = settings
        self._breaker = breaker
        self._ends = (time.perf_counter() if since_s is None else since_s) + settings.deadline_s

    def may_try(self) -> bool:
        """Whether to send the task; False to finish it here at once."""
        if self.on_failure != "fallback" or self._breaker.admits():
            return True
        self.failure = EdgeUnavailableError("the edge has failed often; it is asked again later", status="UNAVAILABLE")
        return False

    def timeout_s(self) -> float:
        """Return the deadline of the try that begins."""
        try_s = self._settings.try_s or self._settings.deadline_s
        return try_s if self.on_failure == "wait" else max(0.001, min(try_s, self._ends - time.perf_counter()))

    def check_busy(self) -> None:
        """Refuse in the edge's name what it would refuse: to be refused by itself costs it, and us, most of a request.

        Raises:
            RemoteError: it has said to ask again later, and it is not later yet.
        """
        busy_s = self._breaker.busy_s
        if busy_s:
            raise _HeldOffError(
                f"the edge is busy; it asked to be left alone for another {busy_s:.2f} s",
                status="RESOURCE_EXHAUSTED",
                retry_after_s=busy_s,
            )

    def failed(self, error: RemoteError) -> float | None:
        """Take note of a failed try; return the pause before the next, None to finish the task here.

        Raises:
            RemoteError: ``error``; there is no further try, and nothing else was asked for.
        """
        self.failure = error
        asked = not isinstance(error, _HeldOffError)
        if asked and error.retry_after_s is not None:
            self._breaker.refused(error.retry_after_s)
        again = isinstance(error, EdgeUnavailableError | DeadlineError) or error.status == "RESOURCE_EXHAUSTED"
        if again:
            pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(self.retries, 30)) * (0.5 + random.random())
            pause_s = max(pause_s, self._breaker.busy_s)
            has_time = self._ends - time.perf_counter() > pause_s
            if self.on_failure == "wait" or (self.retries < self._settings.retries and has_time):
                self.retries += 1
                return pause_s
            if asked:
                self._breaker.failed()
        if self.on_failure == "fallback":
            return None
        raise error
