"""Deadlines for the requests of an open stream; gRPC has them for whole streams only."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import grpc

from splitinfer.errors import DeadlineError, EdgeUnavailableError, RemoteError
from splitinfer.runtime.direct import RequestLane, open_lane
from splitinfer.runtime.transport import Metadata
from splitinfer.wire import LongMessage


class Watchdog:
    """Cancels lanes whose replies are late.

    It sleeps in a thread of its own, and in the usual case, every deadline later than the last, arming it wakes nobody:
    it finds the newer deadline when it wakes up for the older one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._condition = threading.Condition(self._lock)
        self._armed: dict[TimedLane, float] = {}
        self._wakes_at = 0.0
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def arm(self, lane: TimedLane, seconds: float) -> None:
        """Have a lane expire in so many seconds unless disarmed."""
        deadline = time.monotonic() + seconds
        with self._lock:
            self._armed[lane] = deadline
            if self._thread is None:
                self._wakes_at = deadline
                self._thread = threading.Thread(target=self._watch, name="splitinfer-deadline", daemon=True)
                self._thread.start()
            elif deadline < self._wakes_at:
                self._condition.notify()

    def disarm(self, lane: TimedLane) -> None:
        with self._lock:
            self._armed.pop(lane, None)

    def close(self) -> None:
        with self._condition:
            self._is_closed = True
            self._armed.clear()
            self._condition.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _watch(self) -> None:
        rest_s = 3600.0
        with self._condition:
            while not self._is_closed:
                now = time.monotonic()
                for lane in [lane for lane, deadline in self._armed.items() if deadline <= now]:
                    del self._armed[lane]
                    lane.expire()
                self._wakes_at = min(self._armed.values(), default=now + rest_s)
                self._condition.wait(self._wakes_at - now)


class TimedLane:
    """A lane with a deadline per request, opened at its first use and again after it has ended.

    Attributes:
        channel: that the last request was sent on.
    """

    def __init__(
        self,
        open_channel: Callable[[], grpc.Channel],
        metadata: Callable[[], Metadata],
        target: str,
        watchdog: Watchdog,
    ) -> None:
        self._open_channel = open_channel
        self._metadata = metadata
        self._target = target
        self._watchdog = watchdog
        self.channel: grpc.Channel | None = None
        self._lane: RequestLane | None = None
        self._was_idle = False
        self._is_late = False

    def begin(self, data: bytes | LongMessage) -> None:
        """Send a request; returns at once. :meth:`finish` or :meth:`cancel` has to follow.

        Raises:
            EdgeUnavailableError: the connection is closed.
        """
        self._is_late = False
        lane = self._lane
        if lane is not None:
            try:
                lane.begin(data)
            except RemoteError:  # it has ended meanwhile
                self.cancel()
            else:
                self._was_idle = True
                return
        self._was_idle = False
        self._open().begin(data)

    def finish(self, data: bytes | LongMessage, deadline_s: float) -> bytes:
        """Wait for the reply, for so many seconds.

        A lane that was closed while it lay idle is opened again, and the request sent once more; computing a tail twice
        does no harm.

        Raises:
            DeadlineError: no reply within the deadline; the lane is closed.
            RemoteError: the stream has ended.
        """
        self._watchdog.arm(self, deadline_s)
        try:
            lane = self._lane
            if lane is not None and self._was_idle:
                try:
                    return lane.finish()
                except EdgeUnavailableError:
                    if self._is_late:
                        raise
                lane = self._open()
                if self._is_late:  # meanwhile, when there was nothing to end
                    raise EdgeUnavailableError(f"lost the edge at {self._target}", status="UNAVAILABLE")
                lane.begin(data)
            if lane is None:  # the client was closed meanwhile
                raise EdgeUnavailableError(f"lost the edge at {self._target}", status="UNAVAILABLE")
            return lane.finish()
        except EdgeUnavailableError:
            self.cancel()
            if self._is_late:
                raise DeadlineError(
                    f"the edge at {self._target} did not answer within {deadline_s:g} s (deadline_s, --deadline-s)",
                    status=grpc.StatusCode.DEADLINE_EXCEEDED.name,
                ) from None
            raise
        except BaseException:  # interrupted: the reply would be taken for the next request's
            self.cancel()
            raise
        finally:
            self._watchdog.disarm(self)

    def _open(self) -> RequestLane:
        self.channel = self._open_channel()
        self._lane = lane = open_lane(self.channel, self._target, self._metadata())
        return lane

    def cancel(self) -> None:
        """End the stream now; the next request opens another."""
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.cancel()

    def expire(self) -> None:
        """End a request whose reply is late."""
        self._is_late = True
        self.cancel()
