"""Who may hold a place at the edge: calls under way, and which of the silent ones makes room for a new one.

An open call holds a thread, whether it works or waits for its peer's next message. Peers that open calls and then say
nothing must not keep others out, so a newcomer that finds all places taken gets that of a silent call: of the
connection that holds most of them, the one that has been silent longest. A client whose idle stream was closed opens
another with its next request. Silence beyond a limit ends a call in any case.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from types import TracebackType

import grpc

from splitinfer.errors import RemoteError

_UNDER_WAY_S = 0.25
"""Silence in which the message of a new call may still be on its way, seconds."""


class OpenCalls:
    """The calls that are open at a server.

    Args:
        limit: calls at the same time.
        silence_s: longest time that a call may wait for its peer's message, seconds.
        named_limit: calls of one peer that has a name; no limit of its own if None.
    """

    def __init__(self, limit: int, silence_s: float, named_limit: int | None = None) -> None:
        self._limit = limit
        self._named_limit = named_limit
        self._silence_s = silence_s
        self._lock = threading.Lock()  # itself where nobody is told: a condition's own methods cost more than the rest
        self._changed = threading.Condition(self._lock)
        self._open: set[OpenCall] = set()
        self._draining = False
        self._stopped = False
        self._sweeper: threading.Thread | None = None

    def opened(self, context: grpc.ServicerContext, name: str = "") -> OpenCall:
        """Take a place for a call; use it as a context manager.

        Args:
            context: of the call.
            name: of the peer, where it has one; its connection stands for it otherwise.

        Raises:
            RemoteError: every place, or every one of this peer's, is taken by a call that is being answered.
        """
        call = OpenCall(self, context, name)
        with self._changed:
            victim = None
            own = [each for each in self._open if each.peer == name] if name and self._named_limit else []
            if self._named_limit is not None and len(own) >= self._named_limit:
                victim = self._most_dispensable(own, share=len(own))
                if victim is None:
                    raise _busy(f"all {self._named_limit} calls that this edge takes of {name} at once are busy")
                self._open.discard(victim)
            elif len(self._open) >= self._limit:
                victim = self._most_dispensable(self._open, share=self._limit // 8)
                if victim is None:
                    raise _busy(f"all {self._limit} calls that this edge takes at once are busy")
                self._open.discard(victim)
            self._open.add(call)
            if self._sweeper is None:
                self._sweeper = threading.Thread(target=self._sweep, name="splitinfer-silence", daemon=True)
                self._sweeper.start()
        if victim is not None:
            victim.context.cancel()
        return call

    def __len__(self) -> int:
        return len(self._open)

    def drain(self) -> None:
        """Close the calls that wait for their peers, and each of the others after its answer."""
        with self._changed:
            self._draining = True
            self._stopped = True
            silent = [call for call in self._open if not call.busy]
            self._changed.notify_all()
        for call in silent:
            call.context.cancel()

    def left(self, call: OpenCall) -> None:
        """Give a call's place back."""
        with self._lock:
            self._open.discard(call)

    def _most_dispensable(self, among: Iterable[OpenCall], share: int) -> OpenCall | None:
        """Return the silent call to end: of who holds most, the oldest. One whose message may be on its way is spared,
        unless its peer holds more than its share of the places.
        """
        now = time.monotonic()
        silent = [call for call in among if not call.busy]
        held = Counter(call.peer for call in silent)
        silent = [call for call in silent if now - call.silent_since_s > _UNDER_WAY_S or held[call.peer] > share]
        return max(silent, key=lambda call: (held[call.peer], -call.silent_since_s), default=None)

    def _sweep(self) -> None:
        with self._changed:
            while not self._stopped:
                now = time.monotonic()
                late = [call for call in self._open if not call.busy and now - call.silent_since_s > self._silence_s]
                self._open.difference_update(late)
                for call in late:
                    call.context.cancel()
                self._changed.wait(self._silence_s / 4)


def _busy(what: str) -> RemoteError:
    return RemoteError(f"{what}; try again later", status=grpc.StatusCode.RESOURCE_EXHAUSTED.name)


class OpenCall:
    """One call's place."""

    def __init__(self, calls: OpenCalls, context: grpc.ServicerContext, name: str = "") -> None:
        self.context = context
        self.peer: str = name or context.peer()
        self.busy = False
        self.silent_since_s = time.monotonic()
        self._calls = calls

    def heard(self, piece: bytes) -> bytes:
        """A piece of a message came: its peer is not silent, but nobody works for it either. Returns the piece."""
        self.silent_since_s = time.monotonic()
        return piece

    def begin(self) -> bool:
        """A message came and is being answered; False when the call should end instead."""
        calls = self._calls
        with calls._lock:
            self.busy = True
            return not calls._draining and self in calls._open

    def end(self) -> bool:
        """The answer is made, and the call waits for its peer again; False when it should end."""
        calls = self._calls
        with calls._lock:
            self.busy = False
            self.silent_since_s = time.monotonic()
            return not calls._draining and self in calls._open

    def __enter__(self) -> OpenCall:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._calls.left(self)
