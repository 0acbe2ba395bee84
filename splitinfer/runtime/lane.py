"""One bidirectional stream that stays open: requests go in, replies come out in the same order.

A call of its own costs several HTTP/2 frames and wake-ups on both sides; on an open stream a small message is one frame
each way, and is answered about half a millisecond sooner.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

import grpc

from splitinfer.errors import DeadlineError, RemoteError
from splitinfer.runtime.channel import INFER_STREAM
from splitinfer.runtime.statuses import error_of_call


class Lane:
    """An open stream for one caller at a time."""

    def __init__(self, channel: grpc.Channel, target: str) -> None:
        self._target = target
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._call = channel.stream_stream(INFER_STREAM)(iter(self._outgoing.get, None))

    def send(self, data: bytes) -> None:
        """Hand over the bytes of a request; returns at once."""
        self._outgoing.put(data)

    def receive(self) -> bytes:
        """Wait for the next reply.

        Raises:
            RemoteError: the stream has ended.
        """
        try:
            reply: bytes = next(self._call)
        except grpc.RpcError as error:
            raise error_of_call(error, self._target) from None
        except StopIteration:
            raise RemoteError(f"the edge at {self._target} closed the stream", status="UNAVAILABLE") from None
        return reply

    def replies(self) -> Iterator[bytes]:
        """Yield replies until the stream ends.

        Raises:
            RemoteError: it ended otherwise than by :meth:`finish`.
        """
        try:
            yield from self._call
        except grpc.RpcError as error:
            raise error_of_call(error, self._target) from None

    @property
    def is_open(self) -> bool:
        return bool(self._call.is_active())

    def finish(self) -> None:
        """Send nothing more; the server ends the stream after its last reply."""
        self._outgoing.put(None)

    def cancel(self) -> None:
        """End the stream now."""
        self._outgoing.put(None)
        self._call.cancel()


class Watchdog:
    """Cancels a lane whose reply is late. gRPC has deadlines for whole streams only.

    It sleeps in a thread of its own, and in the usual case, every deadline later than the last, arming it wakes nobody:
    it finds the newer deadline when it wakes up for the older one.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._armed: tuple[float, Callable[[], None]] | None = None
        self._wakes_at = 0.0
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def arm(self, seconds: float, expire: Callable[[], None]) -> None:
        """Call ``expire`` in so many seconds unless disarmed."""
        deadline = time.monotonic() + seconds
        with self._condition:
            self._armed = (deadline, expire)
            if self._thread is None:
                self._wakes_at = deadline
                self._thread = threading.Thread(target=self._watch, name="splitinfer-deadline", daemon=True)
                self._thread.start()
            elif deadline < self._wakes_at:
                self._condition.notify()

    def disarm(self) -> None:
        with self._condition:
            self._armed = None

    def close(self) -> None:
        with self._condition:
            self._is_closed = True
            self._armed = None
            self._condition.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _watch(self) -> None:
        rest_s = 3600.0
        with self._condition:
            while not self._is_closed:
                now = time.monotonic()
                if self._armed is not None and self._armed[0] <= now:
                    expire = self._armed[1]
                    self._armed = None
                    expire()
                self._wakes_at = self._armed[0] if self._armed is not None else now + rest_s
                self._condition.wait(self._wakes_at - now)


class TimedLane:
    """A lane with a deadline per request."""

    def __init__(self, channel: grpc.Channel, target: str, watchdog: Watchdog, deadline_s: float) -> None:
        self._lane = Lane(channel, target)
        self._target = target
        self._watchdog = watchdog
        self._deadline_s = deadline_s
        self._is_late = False

    def exchange(self, data: bytes) -> bytes:
        """Send a request and wait for its reply.

        Raises:
            DeadlineError: no reply within the deadline; the lane is closed.
            RemoteError: the stream has ended.
        """
        self._watchdog.arm(self._deadline_s, self._expire)
        try:
            self._lane.send(data)
            return self._lane.receive()
        except RemoteError:
            if self._is_late:
                raise DeadlineError(
                    f"the edge at {self._target} did not answer within {self._deadline_s:g} s",
                    status=grpc.StatusCode.DEADLINE_EXCEEDED.name,
                ) from None
            raise
        finally:
            self._watchdog.disarm()

    @property
    def is_open(self) -> bool:
        return self._lane.is_open

    def cancel(self) -> None:
        self._lane.cancel()

    def _expire(self) -> None:
        self._is_late = True
        self._lane.cancel()
