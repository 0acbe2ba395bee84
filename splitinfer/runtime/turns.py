"""Whose turn it is on the edge's processors. Requests for one tail that queued up meanwhile are computed together.

Nobody waits while a processor is free: a request that finds one takes it at once, alone. The others queue, first come,
first served; when a processor becomes free, the first in line takes it, and with it the others that wait for the same
tail. So a batch is what queued during the last run, never what a timer collected. The thread of the first request does
the work, so that an idle edge hands nothing from thread to thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from splitinfer.errors import RemoteError, SplitInferError

logger = logging.getLogger(__name__)

IDLE, SINGLE, FULL, QUEUED, SPLIT = "idle", "single", "full", "queued", "split"
"""Why a batch left, as :class:`~splitinfer.runtime.events.BatchReleased` explains it."""


_FORGETTING = 0.05
"""Weight of the last run in the mean time of a run."""


class Turn:
    """One request's turn.

    Attributes:
        result: what was computed.
        queue_s, run_s: waited and computed, seconds; of a batch as a whole.
        batch: requests that were computed together.
    """

    __slots__ = ("arrived", "batch", "error", "is_wanted", "key", "leads", "queue_s", "result", "run_s", "wake", "work")

    def __init__(self, key: Hashable, work: Any, is_wanted: Callable[[], bool]) -> None:
        self.key = key
        self.work = work
        self.is_wanted = is_wanted
        self.arrived = time.perf_counter()
        self.queue_s = self.run_s = 0.0
        self.batch = 1
        self.leads = False
        self.wake: threading.Lock | None = None
        self.result: Any = None
        self.error: Exception | None = None


class Turns:
    """Gives turns on a number of processors.

    Args:
        processors: runs at the same time.
        max_wait_s: a request is refused while those in line will take longer, seconds.
        run: computes the work of one key, of one request or of several; returns their results in order.
        sizes: that batches of a key may have now, ascending from 1.
        batch_failed: told of a key and a size that failed although each request alone did not.
        released: told of every batch: key, size, longest wait in seconds, reason, members dropped because nobody waits
            for their answer any more.
    """

    def __init__(
        self,
        processors: int,
        run: Callable[[Any, list[Any]], Sequence[Any]],
        *,
        max_wait_s: float = float("inf"),
        sizes: Callable[[Any], Sequence[int]] = lambda key: (1,),
        batch_failed: Callable[[Any, int], None] = lambda key, size: None,
        released: Callable[[Any, int, float, str, int], None] | None = None,
    ) -> None:
        self._run = run
        self._sizes = sizes
        self._batch_failed = batch_failed
        self._released = released
        self._lock = threading.Lock()
        self._free = processors
        self._waiting: list[Turn] = []
        self._running: dict[Turn, float] = {}
        self._progress = time.perf_counter()
        self._processors = processors
        self._max_wait_s = max_wait_s
        self._mean_run_s = 0.0  # of the last requests, each one's share of its batch

    def take(self, key: Hashable, work: Any, is_wanted: Callable[[], bool] = lambda: True) -> Turn:
        """Wait for a turn and have the work done.

        Args:
            key: of the tail; requests of equal keys may be computed together.
            work: what ``run`` takes.
            is_wanted: asked when the turn has come; False drops the request uncomputed.

        Raises:
            RemoteError: it was dropped, or too many wait.
            Exception: what ``run`` raises for this request alone.
        """
        turn = Turn(key, work, is_wanted)
        with self._lock:
            if self._free:
                self._free -= 1
                self._running[turn] = turn.arrived
                turn.leads = True
            else:
                if self.backlog_s > self._max_wait_s:
                    raise RemoteError(
                        f"the requests that wait at this edge already take {self.backlog_s:.2f} s; try again later",
                        status="RESOURCE_EXHAUSTED",
                    )
                turn.wake = threading.Lock()
                turn.wake.acquire()
                self._waiting.append(turn)
        if turn.wake is not None:
            turn.wake.acquire()  # by whoever computes this request, or hands the processor over
        if turn.leads:
            self._lead(turn)
        if turn.error is not None:
            raise turn.error
        return turn

    @property
    def waiting(self) -> int:
        """Requests in line."""
        return len(self._waiting)

    @property
    def backlog_s(self) -> float:
        """The time that the requests in line will take, seconds."""
        return len(self._waiting) * self._mean_run_s / self._processors

    def stuck_s(self) -> float:
        """Return how long a run has taken that has not ended, or how long requests have waited without any ending."""
        now = time.perf_counter()
        with self._lock:
            since = list(self._running.values())
            if self._waiting:
                since.append(max(self._progress, self._waiting[0].arrived))
        return now - min(since, default=now)

    def _lead(self, first: Turn) -> None:
        batch = [first]
        try:
            if first.wake is None:  # it found a processor free, so nobody else waits, and its client has just asked
                first.queue_s = time.perf_counter() - first.arrived
                if self._released is not None:
                    self._tell(batch, IDLE, 0)
            else:
                batch = self._gather(first)
            self._compute(batch)
        finally:
            self._hand_over(first, batch)

    def _gather(self, first: Turn) -> list[Turn]:
        """Return the requests to compute now, without those that nobody waits for."""
        batch: list[Turn] = []
        dropped: list[Turn] = []
        sizes = self._sizes(first.key)
        with self._lock:
            candidates = [first]
            if self._waiting and sizes[-1] > 1:
                candidates += [turn for turn in self._waiting if turn.key == first.key]
            for turn in candidates:
                (batch if turn.is_wanted() else dropped).append(turn)
                if len(batch) == sizes[-1]:
                    break
            wanted = len(batch)
            if wanted > 1:
                batch = batch[: max(size for size in sizes if size <= wanted)]
            if len(candidates) > 1:
                leaving = {*batch, *dropped}
                self._waiting = [turn for turn in self._waiting if turn not in leaving]
            now = time.perf_counter()
            if batch:
                self._running[first] = now
        for turn in dropped:
            turn.error = RemoteError("the client no longer waits for the answer", status="CANCELLED")
            if turn is not first:
                _wake(turn)
        for turn in batch:
            turn.queue_s = now - turn.arrived
        reason = FULL if len(batch) == sizes[-1] else SPLIT if len(batch) < wanted else QUEUED
        self._tell(batch, SINGLE if sizes[-1] == 1 else reason, len(dropped))
        return batch

    def _tell(self, batch: list[Turn], reason: str, dropped: int) -> None:
        if self._released is None or not batch:
            return
        try:
            self._released(batch[0].key, len(batch), max(turn.queue_s for turn in batch), reason, dropped)
        except Exception:
            logger.exception("whoever is told of batches failed")  # and no request waits for ever because of that

    def _compute(self, batch: list[Turn]) -> None:
        together = len(batch) > 1
        start = time.perf_counter()
        if together:
            try:
                results = self._run(batch[0].key, [turn.work for turn in batch])
                for turn, result in zip(batch, results, strict=True):
                    turn.result = result
            except Exception as error:  # noqa: BLE001 - whose fault it is shows when each runs alone
                logger.info("a batch of %d failed (%s); its requests run one by one", len(batch), error)
                together = False
        if not together:
            for turn in batch:
                try:
                    (turn.result,) = self._run(turn.key, [turn.work])
                except Exception as error:  # noqa: BLE001 - raised again in the thread of the request
                    turn.error = error
            if len(batch) > 1 and not any(turn.error for turn in batch):
                self._batch_failed(batch[0].key, len(batch))
        run_s = time.perf_counter() - start
        each_s = run_s / max(1, len(batch))
        self._mean_run_s += (each_s - self._mean_run_s) * (_FORGETTING if self._mean_run_s else 1.0)
        for turn in batch:
            turn.run_s = run_s
            turn.batch = len(batch) if together else 1

    def _hand_over(self, first: Turn, batch: list[Turn]) -> None:
        """Give the processor to the next in line, and the batch its results."""
        with self._lock:
            self._running.pop(first, None)
            self._progress = time.perf_counter()
            following = self._waiting.pop(0) if self._waiting else None
            if following is None:
                self._free += 1
            else:
                following.leads = True
        if following is not None:
            _wake(following)
        for turn in batch:
            if turn.result is None and turn.error is None:  # the thread is being ended
                turn.error = SplitInferError("the run was interrupted")
            if turn is not first:
                _wake(turn)


def _wake(turn: Turn) -> None:
    assert turn.wake is not None
    turn.wake.release()
