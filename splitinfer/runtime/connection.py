"""``Connection``: a client's channel to one edge, the streams that are kept open on it, and a new one after a loss."""

from __future__ import annotations

import threading
import time

import grpc

from splitinfer.errors import DeadlineError, EdgeUnavailableError, RemoteError
from splitinfer.runtime.direct import unlock
from splitinfer.runtime.exchange import Exchange
from splitinfer.runtime.settings import ClientSettings
from splitinfer.runtime.statuses import StreamEndedError, error_of_call
from splitinfer.runtime.timed_lane import TimedLane, Watchdog
from splitinfer.runtime.transport import INFER, open_channel
from splitinfer.wire import LongMessage


class Connection:
    """Calls to one edge, from any number of threads. It connects at first use and again after a loss.

    Args:
        target: ``host:port`` of the server.
        settings: of the client.
        exchange: whose metadata calls carry; it forgets what the edge said of itself when the connection is lost.

    Attributes:
        closing: set once it is closed.
        retired: channels that were replaced after a silence, and since when, ``time.monotonic()``; calls of others may
            be under way on them until their deadlines.
    """

    def __init__(self, target: str, settings: ClientSettings, exchange: Exchange) -> None:
        self.closing = threading.Event()
        self._target = target
        self._settings = settings
        self._exchange = exchange
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self.retired: list[tuple[float, grpc.Channel]] = []
        self._watchdog = Watchdog()
        self._lanes: list[TimedLane] = []
        self._free_lanes: list[TimedLane] = []

    def close(self) -> None:
        """Close it. Calls under way fail with ``EdgeUnavailableError``."""
        self.closing.set()
        with self._lock:
            channels = [channel for _, channel in self.retired]
            if self._channel is not None:
                channels.append(self._channel)
            self._channel, self.retired = None, []
            lanes = list(self._lanes)
        for lane in lanes:
            lane.cancel()
        self._watchdog.close()
        for channel in channels:
            channel.close()

    def begin(self, data: bytes | LongMessage) -> TimedLane | None:
        """Send a request over an open stream if it is small and a stream is free; returns at once.

        Returns:
            the stream, for :meth:`finish` or :meth:`drop`; None if the request is to be a call of its own.

        Raises:
            EdgeUnavailableError: the connection is closed.
        """
        if len(data) > self._settings.stream_up_to_bytes:
            return None
        try:
            lane = self._free_lanes.pop()  # the one used last: the others may close unused
        except IndexError:
            new = self._new_lane()
            if new is None:
                return None
            lane = new
        try:
            lane.begin(data)
        except BaseException:
            self.drop(lane)
            raise
        return lane

    def finish(self, lane: TimedLane | None, data: bytes | LongMessage, timeout_s: float) -> bytes:
        """Wait for the answer to the request that was sent over a stream; or make a call of its own.

        Args:
            lane: the stream.
            data: of the request.
            timeout_s: for which to wait at most.

        Raises:
            RemoteError: it is refused, or there is no answer.
        """
        if lane is None:
            return self.call(INFER, bytes(data), timeout_s)
        try:
            reply = lane.finish(data, timeout_s)
        except RemoteError as error:
            self.note(error, lane.channel)
            raise
        finally:
            self._free_lanes.append(lane)
        return reply

    def drop(self, lane: TimedLane) -> None:
        """Give up a request that was sent over a stream: its reply would be taken for the next one's."""
        lane.cancel()
        self._free_lanes.append(lane)

    def _new_lane(self) -> TimedLane | None:
        with self._lock:
            if len(self._lanes) == self._settings.streams:
                return None
            lane = TimedLane(self.channel, self._exchange.metadata, self._target, self._watchdog)
            self._lanes.append(lane)
            return lane

    def call(self, method: str, data: bytes, timeout_s: float) -> bytes:
        """Make a call of its own.

        Raises:
            RemoteError: it is refused, or there is no answer.
        """
        metadata = self._exchange.metadata()
        channel = self.channel()
        try:
            reply: bytes = channel.unary_unary(method)(data, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            failure = error_of_call(error, self._target)
            self.note(failure, channel)
            raise failure from None
        except ValueError as error:  # gRPC's word for a channel that another thread has closed
            raise self._lost() from error
        except BaseException:  # interrupted
            unlock(channel)
            raise
        return reply

    def channel(self) -> grpc.Channel:
        """Return the channel to make calls on.

        Raises:
            EdgeUnavailableError: the connection is closed.
        """
        with self._lock:
            if self.closing.is_set():
                raise EdgeUnavailableError(f"the client of {self._target} is closed", status="UNAVAILABLE")
            if self._channel is None:
                self._channel = open_channel(self._target, self._settings)
            return self._channel

    def note(self, error: RemoteError, channel: grpc.Channel | None) -> None:
        """After a lost or silent connection start afresh: a new channel has no waiting time behind it."""
        if isinstance(error, StreamEndedError) or not isinstance(error, EdgeUnavailableError | DeadlineError):
            return
        self.close_retired()
        lost: grpc.Channel | None = None
        with self._lock:
            if channel is not None and self._channel is channel:
                self._channel = None
                if isinstance(error, EdgeUnavailableError):
                    self._exchange.forget()
                    lost = channel
                else:
                    self.retired.append((time.monotonic(), channel))
        if lost is not None:
            lost.close()

    def close_retired(self) -> None:
        """Close the channels on which no call can be under way any more."""
        with self._lock:
            since_s = time.monotonic() - self._settings.deadline_s
            ended = [old for retired_s, old in self.retired if retired_s < since_s]
            self.retired = [(retired_s, old) for retired_s, old in self.retired if retired_s >= since_s]
        for old in ended:
            old.close()

    def _lost(self) -> EdgeUnavailableError:
        what = (
            f"the client of {self._target} is closed" if self.closing.is_set() else f"lost the edge at {self._target}"
        )
        return EdgeUnavailableError(what, status="UNAVAILABLE")
