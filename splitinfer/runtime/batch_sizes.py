"""Which tails may run in batches of which sizes: those that answer like single runs, in less time."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from splitinfer.errors import CheckFailedError, InputError, SplitInferError
from splitinfer.runtime.events import BatchReleased, Event

if TYPE_CHECKING:
    from splitinfer.graph import SplitModel

logger = logging.getLogger(__name__)

BATCH_TOLERANCE = 1e-5
"""Largest error of a batched answer against the single one, relative to the largest magnitude of each output tensor.
Whole numbers and truth values are equal."""

SIZES = (1, 2, 4, 8, 16, 32)

_REPEATS = 2


def check_batch(batch: int) -> None:
    """Refuse what is no size of a batch.

    Raises:
        InputError: it is none of ``SIZES``.
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or batch not in SIZES:
        raise InputError(f"batch must be one of {', '.join(map(str, SIZES))}, not {batch!r}")


class BatchSizes:
    """Knows the sizes of batches of each tail, and finds them out.

    A tail is tried in a thread of its own when a request for it first had to queue, which itself is computed alone,
    like all others until the sizes are known: nobody waits for a trial. :meth:`warm` does it beforehand.

    Args:
        models: by name.
        most: largest batch; 1 is none.
        torch_threads: threads inside one operation.
    """

    def __init__(self, models: Mapping[str, SplitModel], most: int, torch_threads: int) -> None:
        self._models = models
        self._most = most
        self._torch_threads = torch_threads
        self._sizes: dict[tuple[str, int], tuple[int, ...]] = {}
        self._lock = threading.Lock()
        self._asked: queue.SimpleQueue[tuple[str, int] | None] = queue.SimpleQueue()
        self._untried = 0
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def __call__(self, tail: tuple[str, int]) -> tuple[int, ...]:
        """Return the sizes that batches of a tail, a model's name and a cut, may have now."""
        sizes = self._sizes.get(tail)
        if sizes is None:
            with self._lock:
                if tail not in self._sizes:
                    self._sizes[tail] = (1,)
                    self._untried += 1
                    self._asked.put(tail)
                    if self._thread is None:
                        self._thread = threading.Thread(target=self._follow, name="splitinfer-batches", daemon=True)
                        self._thread.start()
            sizes = self._sizes[tail]
        return sizes

    def failed(self, tail: tuple[str, int], size: int) -> None:
        """Note that batches of a size fail where single runs do not; there will be no more of them."""
        logger.warning("%s cut %d: batches of %d failed and are not tried again", *tail, size)
        self._sizes[tail] = tuple(each for each in self._sizes[tail] if each < size)

    def warm(self) -> None:
        """Find out the sizes of every tail now, where the engine compiles quickly."""
        for name, split in self._models.items():
            for k in split.tails if split.compiles_quickly else ():
                self._sizes[name, k] = self._try((name, k))

    @property
    def untried(self) -> int:
        """Tails whose trial is to come, or under way."""
        return self._untried

    def close(self) -> None:
        """End the thread, after the size that it tries."""
        self._is_closed = True
        self._asked.put(None)
        if self._thread is not None:
            self._thread.join()

    def _follow(self) -> None:
        from splitinfer.graph.engines import set_threads

        set_threads(self._torch_threads)
        while (tail := self._asked.get()) is not None and not self._is_closed:
            self._sizes[tail] = self._try(tail)
            self._untried -= 1

    def _try(self, tail: tuple[str, int]) -> tuple[int, ...]:
        from splitinfer.runtime.verify import check_answer

        split, k = self._models[tail[0]], tail[1]
        sizes = [1]
        try:
            trials = [split.trial_tensors(k, seed) for seed in (0, 1)]
            singly = [split.run_tail_leaves(k, tensors) for tensors in trials]
            single_s = _least_s(partial(split.run_tails, k, trials[:1]))
            for size in (size for size in SIZES if 1 < size <= self._most and not self._is_closed):
                batch = [trials[index % 2] for index in range(size)]
                for got, want in zip(split.run_tails(k, batch), singly * (size // 2), strict=True):
                    check_answer(got, want, f"a batch of {size}", tolerance=max(BATCH_TOLERANCE, split.tolerance))
                if _least_s(partial(split.run_tails, k, batch)) < size * single_s:
                    sizes.append(size)
        except CheckFailedError as error:
            logger.info("%s cut %d: %s; batches of %s only", *tail, error, sizes)
        except SplitInferError as error:
            logger.info("%s", error)
        except Exception as error:  # noqa: BLE001 - a model that made-up inputs are not for
            logger.info("%s cut %d cannot be tried in batches: %s", *tail, error)
        logger.info("%s cut %d: sizes of batches %s", *tail, sizes)
        return tuple(sizes)


class BatchCounts:
    """Counts the batches of an edge, as an observer. Thread-safe.

    Attributes:
        sizes: batches by size.
        reasons: batches by the reason of their release.
        oldest_wait_s: longest wait of a request for its batch, seconds.
        dropped: requests that were left out because nobody waited any more.
    """

    def __init__(self) -> None:
        self.sizes: Counter[int] = Counter()
        self.reasons: Counter[str] = Counter()
        self.oldest_wait_s = 0.0
        self.dropped = 0
        self._lock = threading.Lock()

    def add(self, event: Event) -> None:
        if isinstance(event, BatchReleased):
            with self._lock:
                self.sizes[event.size] += 1
                self.reasons[event.reason] += 1
                self.oldest_wait_s = max(self.oldest_wait_s, event.oldest_wait_s)
                self.dropped += event.dropped

    @property
    def requests(self) -> int:
        return sum(size * count for size, count in self.sizes.items())

    def __str__(self) -> str:
        batches = max(1, self.sizes.total())
        of_size = ", ".join(f"{self.sizes[size]} of {size}" for size in sorted(self.sizes))
        why = ", ".join(f"{reason} {count}" for reason, count in self.reasons.most_common())
        return (
            f"{self.requests} requests in {batches} batches, {self.requests / batches:.2f} each ({of_size}); "
            f"released: {why}; longest wait {self.oldest_wait_s * 1e3:.0f} ms; dropped {self.dropped}"
        )


def _least_s(run: Callable[[], object]) -> float:
    spent = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        run()
        spent.append(time.perf_counter() - start)
    return min(spent)
