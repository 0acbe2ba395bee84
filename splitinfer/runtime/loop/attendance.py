"""The device's end of the control stream."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import grpc

from splitinfer.errors import DeadlineError, EdgeUnavailableError, RemoteError
from splitinfer.runtime.settings import ClientSettings
from splitinfer.runtime.statuses import error_of_call
from splitinfer.runtime.transport import checked_target, open_channel
from splitinfer.wire import splitinfer_pb2 as pb

SERVICE: str = pb.DESCRIPTOR.services_by_name["SplitScheduling"].full_name
ATTEND = f"/{SERVICE}/Attend"


class Attendance:
    """One device at an edge, from hello to farewell. A thread of its own reads what the edge says.

    Args:
        target: ``host:port`` of the edge.
        on_result: called with each ``Result``, on the reading thread.
        settings: of the connection.
    """

    def __init__(
        self, target: str, on_result: Callable[[pb.Result], None], settings: ClientSettings | None = None
    ) -> None:
        self._target = checked_target(target)
        self._settings = settings or ClientSettings()
        self._on_result = on_result
        self._outgoing: queue.SimpleQueue[pb.DeviceMessage | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._start: pb.Start | None = None
        self._cuts: dict[int, list[int]] = {}
        self._finished = False
        self._ended = False
        self._error: Exception | None = None
        self._channel = open_channel(self._target, self._settings)
        self._call: grpc.Call | None = None
        self._reader = threading.Thread(target=self._read, name="splitinfer-attendance", daemon=True)

    def join(self, hello: pb.Hello, *, connect_s: float, join_s: float) -> pb.Start:
        """Say hello, and wait until the run starts.

        Raises:
            EdgeUnavailableError: no edge answers.
            DeadlineError: the run does not start in time.
            RemoteError: the edge refuses this device.
        """
        if not self._connects(connect_s):
            raise EdgeUnavailableError(f"no edge server answers at {self._target}", status="UNAVAILABLE")
        attend = self._channel.stream_stream(
            ATTEND,
            request_serializer=pb.DeviceMessage.SerializeToString,
            response_deserializer=pb.EdgeMessage.FromString,
        )
        self._outgoing.put(pb.DeviceMessage(hello=hello))
        self._call = attend(iter(self._outgoing.get, None), metadata=self._settings.security.metadata(self._target))
        self._reader.start()
        self._wait(lambda: self._start is not None, join_s, "the run did not start: other devices are missing")
        assert self._start is not None
        return self._start

    def send(self, slot: pb.Slot) -> None:
        """Hand over a slot's message; returns at once.

        Raises:
            RemoteError: the stream has ended.
        """
        self._check()
        self._outgoing.put(pb.DeviceMessage(slot=slot))

    def cuts_from(self, slot: int, patience_s: float) -> list[int] | None:
        """Return the cuts that the edge sent for the period from ``slot`` on; None if they are late.

        Raises:
            RemoteError: the stream has ended.
        """
        with self._changed:
            self._changed.wait_for(lambda: slot in self._cuts or self._ended, timeout=patience_s)
            found = self._cuts.get(slot)
            for past in [one for one in self._cuts if one < slot]:
                del self._cuts[past]
        self._check()
        return found

    def wait_finished(self, timeout_s: float) -> None:
        """Wait until the edge has done every slot; all results are in then.

        Raises:
            RemoteError: the stream has ended before, or the edge is silent.
        """
        self._wait(lambda: self._finished, timeout_s, "the edge did not finish the run")

    def leave(self, farewell: pb.Farewell) -> None:
        """Say goodbye and close the connection."""
        self._outgoing.put(pb.DeviceMessage(farewell=farewell))
        self._outgoing.put(None)
        self._reader.join(timeout=self._settings.deadline_s)
        self.close()

    def close(self) -> None:
        """Close the connection, whatever is under way."""
        self._outgoing.put(None)
        if self._call is not None:
            self._call.cancel()
        self._channel.close()

    def _connects(self, timeout_s: float) -> bool:
        """Wait for the connection; gRPC's own future waits by the wall clock, which may be set meanwhile."""
        ready = threading.Event()

        def look(state: grpc.ChannelConnectivity) -> None:
            if state is grpc.ChannelConnectivity.READY:
                ready.set()

        self._channel.subscribe(look, try_to_connect=True)
        try:
            return ready.wait(timeout_s)
        finally:
            self._channel.unsubscribe(look)

    def _wait(self, holds: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
        with self._changed:
            held = self._changed.wait_for(lambda: holds() or self._ended, timeout=timeout_s)
        if not holds():
            self._check()
            if not held:
                raise DeadlineError(f"{otherwise} within {timeout_s:g} s", status="DEADLINE_EXCEEDED")

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if self._ended and not self._finished:
            raise EdgeUnavailableError(f"the edge at {self._target} ended the run", status="UNAVAILABLE")

    def _read(self) -> None:
        assert self._call is not None
        try:
            for message in self._call:
                self._take(message)
        except grpc.RpcError as error:
            failure: Exception = error_of_call(error, self._target)
        except Exception as error:  # noqa: BLE001 - handed to the device's own thread, which raises it
            failure = error
        else:
            failure = RemoteError("", status="OK")
        with self._changed:
            if not (isinstance(failure, RemoteError) and failure.status == "OK"):
                self._error = failure
            self._ended = True
            self._changed.notify_all()

    def _take(self, message: pb.EdgeMessage) -> None:
        kind = message.WhichOneof("kind")
        if kind == "result":
            self._on_result(message.result)
            return
        with self._changed:
            if kind == "start":
                self._start = message.start
            elif kind == "cuts":
                self._cuts[message.cuts.from_slot] = list(message.cuts.cuts)
            elif kind == "finish":
                self._finished = True
            self._changed.notify_all()
