"""Every request once: a repeated id gets the answer that the first had, or waits for it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from splitinfer.errors import InputError, SplitInferError

Wanted = Callable[[], bool]


class Once:
    """Answers by the ids of requests, the last ones kept. Thread-safe.

    Args:
        max_bytes: of answers kept; the oldest go first. 0 keeps none, and then only what is under way is shared.
        keep_s: for which an answer is kept at most, seconds.
        clock: of the time.
    """

    def __init__(
        self, max_bytes: int, keep_s: float = float("inf"), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes = max_bytes
        self._keep_s = keep_s
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[Hashable, bytes, float]] = OrderedDict()
        self._bytes = 0
        self._under_way: dict[Hashable, _Run] = {}

    def answer(
        self, key: Hashable, content: Hashable, is_wanted: Wanted, compute: Callable[..., bytes], *args: Any
    ) -> tuple[bytes, bool]:
        """Return the answer to a request, and whether it was computed for this call.

        Args:
            key: of the sender and its request.
            content: equal for equal requests.
            is_wanted: whether this call still waits.
            compute: answers it, given ``args`` and a function that says whether anybody still waits.
            args: for it.

        Raises:
            InputError: another request had this key.
            Exception: what ``compute`` raised for the call that it was made for.
        """
        with self._lock:
            kept = self._kept.get(key)
            run = self._under_way.get(key)
            known = kept[0] if kept is not None else run.content if run is not None else content
            if known != content:
                raise InputError("a request with this id was another one; an id is used once")
            if kept is not None:
                return kept[1], False
            leads = run is None
            if run is None:
                run = self._under_way[key] = _Run(content)
            run.wanted.append(is_wanted)
            if not leads and run.done is None:
                run.done = threading.Event()
        if not leads:
            assert run.done is not None
            run.done.wait()
            if run.error is not None:
                raise run.error
            return run.answer, False
        try:
            run.answer = compute(*args, lambda: any(wanted() for wanted in tuple(run.wanted)))
        except BaseException as error:
            run.error = error if isinstance(error, Exception) else SplitInferError("the request was interrupted")
            raise
        finally:
            with self._lock:
                del self._under_way[key]
                if run.error is None:
                    self._keep(key, content, run.answer)
            if run.done is not None:
                run.done.set()
        return run.answer, True

    def _keep(self, key: Hashable, content: Hashable, answer: bytes) -> None:
        if len(answer) > self._max_bytes:
            return
        now = self._clock()
        self._kept[key] = content, answer, now
        self._bytes += len(answer) + _ENTRY_BYTES
        while self._kept:
            oldest = next(iter(self._kept))
            _, kept, since = self._kept[oldest]
            if self._bytes <= self._max_bytes and now - since <= self._keep_s:
                break
            del self._kept[oldest]
            self._bytes -= len(kept) + _ENTRY_BYTES


_ENTRY_BYTES = 512
"""What a kept answer takes beside its bytes, roughly."""


class _Run:
    """A request under way. Few are asked for twice, so what a second one would wait for is made by that one."""

    __slots__ = ("answer", "content", "done", "error", "wanted")

    def __init__(self, content: Hashable) -> None:
        self.content = content
        self.wanted: list[Wanted] = []
        self.done: threading.Event | None = None
        self.answer = b""
        self.error: Exception | None = None
