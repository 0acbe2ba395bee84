"""The edge's end of the control streams: who is there, and what each device says slot by slot."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import grpc

from splitinfer.errors import DeadlineError, InputError, ModelMismatchError, RemoteError
from splitinfer.runtime.channel import server_options
from splitinfer.runtime.loop.attendance import SERVICE
from splitinfer.runtime.settings import ServerSettings
from splitinfer.runtime.statuses import refusal
from splitinfer.runtime.tails import unknown_version
from splitinfer.wire import MAX_PROTOCOL_VERSION, MIN_PROTOCOL_VERSION
from splitinfer.wire import splitinfer_pb2 as pb


class Hub:
    """Listens, takes one stream per device, and hands messages over by slot. A context manager.

    Args:
        fingerprints: of every service's model, one list per device.
        scenario: digest of the world.
        settings: where to listen; limits of messages.

    Attributes:
        address: ``host:port``, once started.
    """

    def __init__(self, fingerprints: Sequence[Sequence[str]], scenario: str, settings: ServerSettings) -> None:
        self.address = ""
        self._fingerprints = [list(device) for device in fingerprints]
        self._scenario = scenario
        self._settings = settings
        self._changed = threading.Condition()
        self._seats: dict[int, _Seat] = {}
        self._server: grpc.Server | None = None

    def __enter__(self) -> Hub:
        settings = self._settings
        # A stream holds its thread for the whole run; a few more refuse devices that have no seat.
        threads = len(self._fingerprints) + 4
        server = grpc.server(ThreadPoolExecutor(threads, "splitinfer-seat"), options=server_options(settings))
        attend = grpc.stream_stream_rpc_method_handler(
            self._attend,
            request_deserializer=pb.DeviceMessage.FromString,
            response_serializer=pb.EdgeMessage.SerializeToString,
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Attend": attend}),))
        try:
            port = server.add_insecure_port(f"{settings.host}:{settings.port}")
        except RuntimeError:
            port = 0
        if not port:
            raise InputError(
                f"cannot listen on {settings.host}:{settings.port}: in use, not allowed, or no such address"
            )
        self.address = f"{settings.host}:{port}"
        server.start()
        self._server = server
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        for seat in self._seats.values():
            seat.outbox.put(error if isinstance(error, Exception) else None)
        if self._server is not None:
            self._server.stop(self._settings.drain_s).wait()

    def wait_for_all(self, timeout_s: float) -> None:
        """Wait until every device has said hello.

        Raises:
            DeadlineError: some did not.
        """
        wanted = set(range(len(self._fingerprints)))
        with self._changed:
            self._changed.wait_for(lambda: wanted <= self._seats.keys(), timeout=timeout_s)
            missing = sorted(wanted - self._seats.keys())
        if missing:
            raise DeadlineError(
                f"devices {', '.join(map(str, missing))} did not come within {timeout_s:g} s",
                status="DEADLINE_EXCEEDED",
            )

    def send(self, device: int, message: pb.EdgeMessage) -> None:
        """Hand over a message for a device; returns at once."""
        self._seats[device].outbox.put(message)

    def slot(self, device: int, slot: int, timeout_s: float) -> pb.Slot:
        """Return a device's message of a slot. Slots are asked for in order.

        Raises:
            RemoteError: the device is gone, or its messages are out of order.
            DeadlineError: it is silent.
        """
        seat = self._seats[device]
        with self._changed:
            self._changed.wait_for(lambda: seat.slots or seat.gone, timeout=timeout_s)
            message = seat.slots.popleft() if seat.slots else None
        if message is None:
            if seat.gone:
                raise RemoteError(f"device {device} went away in slot {slot}", status="UNAVAILABLE")
            raise DeadlineError(
                f"device {device} said nothing of slot {slot} within {timeout_s:g} s", status="DEADLINE_EXCEEDED"
            )
        if message.slot != slot:
            raise RemoteError(f"device {device} speaks of slot {message.slot} in slot {slot}", status="INTERNAL")
        return message

    def farewell(self, device: int, timeout_s: float) -> pb.Farewell:
        """Return a device's last message.

        Raises:
            RemoteError: the device is gone without one.
        """
        seat = self._seats[device]
        with self._changed:
            self._changed.wait_for(lambda: seat.farewell is not None or seat.gone, timeout=timeout_s)
        if seat.farewell is None:
            raise RemoteError(f"device {device} left without a farewell", status="UNAVAILABLE")
        return seat.farewell

    def _attend(self, messages: Iterator[pb.DeviceMessage], context: grpc.ServicerContext) -> Iterator[pb.EdgeMessage]:
        try:
            seat = self._take_seat(next(messages, None))
        except Exception as error:  # noqa: BLE001 - the boundary; refusal() logs what is not meant for the device
            _abort(context, error)
        threading.Thread(target=self._listen, args=(seat, messages), name="splitinfer-hub", daemon=True).start()
        while True:
            message = seat.outbox.get()
            if message is None:
                return
            if isinstance(message, Exception):
                _abort(context, message)
            yield message

    def _take_seat(self, first: pb.DeviceMessage | None) -> _Seat:
        if first is None or first.WhichOneof("kind") != "hello":
            raise InputError("a device says hello first")
        hello = first.hello
        if not MIN_PROTOCOL_VERSION <= hello.protocol_version <= MAX_PROTOCOL_VERSION:
            raise unknown_version(hello.protocol_version)
        if hello.device >= len(self._fingerprints):
            raise InputError(f"this run has devices 0..{len(self._fingerprints) - 1}, not {hello.device}")
        if hello.scenario != self._scenario:
            raise InputError("the device has another scenario than the edge; give both the same --scenario and --set")
        if list(hello.fingerprints) != self._fingerprints[hello.device]:
            raise ModelMismatchError(
                f"device {hello.device} holds other models or weights than the edge", status="FAILED_PRECONDITION"
            )
        with self._changed:
            if hello.device in self._seats:
                raise InputError(f"device {hello.device} is there already")
            seat = self._seats[hello.device] = _Seat()
            self._changed.notify_all()
        return seat

    def _listen(self, seat: _Seat, messages: Iterator[pb.DeviceMessage]) -> None:
        try:
            for message in messages:
                with self._changed:
                    if message.WhichOneof("kind") == "slot":
                        seat.slots.append(message.slot)
                    elif message.WhichOneof("kind") == "farewell":
                        seat.farewell = message.farewell
                    self._changed.notify_all()
        except grpc.RpcError:
            pass  # the device is gone, which is said below
        except Exception:  # noqa: BLE001 - gRPC raises a bare Exception when the call is cancelled under the iterator
            pass
        with self._changed:
            seat.gone = True
            self._changed.notify_all()
        seat.outbox.put(None)


class _Seat:
    """One device's place."""

    def __init__(self) -> None:
        self.outbox: queue.SimpleQueue[pb.EdgeMessage | Exception | None] = queue.SimpleQueue()
        self.slots: deque[pb.Slot] = deque()
        self.farewell: pb.Farewell | None = None
        self.gone = False


def _abort(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    context.abort(*refusal(error))
    raise AssertionError("abort() never returns")
