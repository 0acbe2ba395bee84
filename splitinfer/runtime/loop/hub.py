"""The edge's end of the control streams: who is there, and what each device says slot by slot."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import grpc

from splitinfer.errors import DeadlineError, InputError, ModelMismatchError, RemoteError
from splitinfer.runtime.admission import OpenCalls
from splitinfer.runtime.door import Door
from splitinfer.runtime.loop.attendance import SERVICE
from splitinfer.runtime.security import check_device
from splitinfer.runtime.settings import ServerSettings
from splitinfer.runtime.statuses import refusal
from splitinfer.runtime.tails import unknown_version
from splitinfer.runtime.transport import listen, server_options
from splitinfer.wire import MAX_PROTOCOL_VERSION, MIN_PROTOCOL_VERSION
from splitinfer.wire import splitinfer_pb2 as pb
from splitinfer.wire.control import read_device_message

_SPARE_THREADS = 8
"""Threads for guests that are just being refused or closed."""


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
        self._door = Door(settings.security)
        self._changed = threading.Condition()
        self._seats: dict[int, _Seat] = {}
        # Who has not said hello yet is a guest: few at a time, each for a short time.
        self._guests = OpenCalls(settings.max_guests, settings.hello_s)
        self._is_over = False
        self._server: grpc.Server | None = None

    def __enter__(self) -> Hub:
        settings = self._settings
        # A stream holds its thread for the whole run; the others are for those who have not said hello yet.
        threads = len(self._fingerprints) + self._settings.max_guests + _SPARE_THREADS
        server = grpc.server(
            ThreadPoolExecutor(threads, "splitinfer-seat"),
            options=server_options(settings),
            interceptors=self._door.interceptors,
        )
        # Requests stay bytes, so that they are held to limits before protobuf reads them.
        attend = grpc.stream_stream_rpc_method_handler(
            self._attend, response_serializer=pb.EdgeMessage.SerializeToString
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Attend": attend}),))
        self.address = listen(server, settings)
        server.start()
        self._server = server
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        for seat in list(self._seats.values()):
            seat.outbox.put(error if isinstance(error, Exception) else None)
        self._guests.drain()
        if self._server is not None:
            self._server.stop(self._settings.drain_s).wait()

    def wait_for_all(self, timeout_s: float) -> None:
        """Wait until every device has said hello; one that goes away before gives up its place.

        Raises:
            DeadlineError: some did not.
        """
        wanted = set(range(len(self._fingerprints)))
        with self._changed:
            self._changed.wait_for(lambda: wanted <= self._seats.keys(), timeout=timeout_s)
            missing = sorted(wanted - self._seats.keys())
            for seat in self._seats.values():
                seat.is_kept = True
        if missing:
            raise DeadlineError(
                f"devices {', '.join(map(str, missing))} did not come within {timeout_s:g} s",
                status="DEADLINE_EXCEEDED",
            )

    def send(self, device: int, message: pb.EdgeMessage) -> None:
        """Hand over a message for a device; returns at once.

        Raises:
            RemoteError: the device does not read what it is sent.
        """
        seat = self._seats[device]
        if seat.unread_bytes > self._settings.max_unread_bytes:
            raise RemoteError(
                f"device {device} leaves {seat.unread_bytes} bytes unread (max_unread_bytes)", status="UNAVAILABLE"
            )
        seat.put(message)

    def vacate(self, device: int, error: Exception) -> None:
        """Give up a device's place: its stream ends with this error, and it can come anew."""
        with self._changed:
            seat = self._seats.pop(device, None)
        if seat is not None:
            seat.outbox.put(error)

    def is_seated(self, device: int) -> bool:
        """Whether a device is there."""
        with self._changed:
            return device in self._seats

    def keep(self, device: int) -> bool:
        """Whether a device is there; its place is then its own until ``vacate``, even if it goes away."""
        with self._changed:
            seat = self._seats.get(device)
            if seat is not None:
                seat.is_kept = True
        return seat is not None

    def slot(self, device: int, slot: int, timeout_s: float) -> pb.Slot:
        """Return a device's message of a slot. Slots are asked for in order.

        Raises:
            RemoteError: the device is gone, or its messages are out of order.
            DeadlineError: it is silent.
        """
        seat = self._seats[device]
        with self._changed:
            self._changed.wait_for(lambda: seat.slots or seat.gone, timeout=timeout_s)
            message = seat.take()
            self._changed.notify_all()
        if message is None:
            if seat.nonsense is not None:
                raise RemoteError(f"device {device} sends a {seat.nonsense}", status="INVALID_ARGUMENT")
            if seat.gone:
                raise RemoteError(f"device {device} went away in slot {slot}", status="UNAVAILABLE")
            raise DeadlineError(
                f"device {device} said nothing of slot {slot} within {timeout_s:g} s", status="DEADLINE_EXCEEDED"
            )
        if message.slot != slot:
            raise RemoteError(
                f"device {device} speaks of slot {message.slot} in slot {slot}", status="INVALID_ARGUMENT"
            )
        return message

    def came_s(self, device: int) -> float:
        """Return ``time.perf_counter()`` when the message came that ``slot`` returned last of a device."""
        return self._seats[device].came_s

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

    def _attend(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[pb.EdgeMessage]:
        try:
            with self._guests.opened(context) as guest:
                first = next(messages, b"")
                if not guest.begin():
                    raise InputError("a device says hello first, and soon")
                seat = self._take_seat(read_device_message(first, self._settings.limits), self._door.identity(context))
        except Exception as error:  # noqa: BLE001 - the boundary; refusal() logs what is not meant for the device
            _abort(context, error)
        threading.Thread(target=self._listen, args=(seat, messages), name="splitinfer-hub", daemon=True).start()
        while True:
            message = seat.next()
            if message is None:
                return
            if isinstance(message, Exception):
                _abort(context, message)
            yield message

    def _take_seat(self, first: pb.DeviceMessage, identity: str) -> _Seat:
        if first.WhichOneof("kind") != "hello":
            raise InputError("a device says hello first")
        hello = first.hello
        if not MIN_PROTOCOL_VERSION <= hello.protocol_version <= MAX_PROTOCOL_VERSION:
            raise unknown_version(hello.protocol_version)
        if hello.device >= len(self._fingerprints):
            raise InputError(f"this run has devices 0..{len(self._fingerprints) - 1}, not {hello.device}")
        check_device(identity, hello.device)
        if hello.scenario != self._scenario:
            raise InputError("the device has another scenario than the edge; give both the same --scenario and --set")
        if list(hello.fingerprints) != self._fingerprints[hello.device]:
            raise ModelMismatchError(
                f"device {hello.device} holds other models or weights than the edge", status="FAILED_PRECONDITION"
            )
        with self._changed:
            if hello.device in self._seats:
                raise InputError(f"device {hello.device} is there already")
            seat = self._seats[hello.device] = _Seat(hello.device)
            self._changed.notify_all()
        return seat

    def _listen(self, seat: _Seat, messages: Iterator[bytes]) -> None:
        try:
            for data in messages:
                message = read_device_message(data, self._settings.limits)
                kind = message.WhichOneof("kind")
                if kind not in ("slot", "farewell"):  # unasked-for, it would be read as fast as it comes
                    raise InputError("message that is neither a slot nor a farewell")
                with self._changed:
                    # Unread here, further messages wait at the device: gRPC lets it send no more.
                    self._changed.wait_for(lambda: seat.has_room(self._settings) or self._is_over)
                    if kind == "slot":
                        seat.add(message.slot)
                    else:
                        seat.farewell = message.farewell
                    self._changed.notify_all()
                if kind == "farewell":  # the last word
                    break
        except InputError as error:
            seat.nonsense = str(error)
            seat.outbox.put(error)
        except grpc.RpcError:
            pass  # the device is gone, which is said below
        except Exception:  # noqa: BLE001 - gRPC raises a bare Exception when the call is cancelled under the iterator
            pass
        with self._changed:
            seat.gone = True
            if not seat.is_kept and self._seats.get(seat.device) is seat:
                del self._seats[seat.device]
            self._changed.notify_all()
        seat.outbox.put(None)


class _Seat:
    """One device's place; it is kept for it once it takes part in the run."""

    def __init__(self, device: int) -> None:
        self.device = device
        self.is_kept = False
        self.outbox: queue.SimpleQueue[pb.EdgeMessage | Exception | None] = queue.SimpleQueue()
        self._handed_over = self._taken = 0  # bytes, each counted by one thread
        self.nonsense: str | None = None
        self.slots: deque[tuple[pb.Slot, float]] = deque()
        self.came_s = 0.0
        self._bytes = 0
        self.farewell: pb.Farewell | None = None
        self.gone = False

    @property
    def unread_bytes(self) -> int:
        """Bytes of messages that the device has not taken yet."""
        return self._handed_over - self._taken

    def put(self, message: pb.EdgeMessage) -> None:
        self._handed_over += message.ByteSize()
        self.outbox.put(message)

    def next(self) -> pb.EdgeMessage | Exception | None:
        """Wait for the next message for the device: an error or None ends the stream."""
        message = self.outbox.get()
        if isinstance(message, pb.EdgeMessage):
            self._taken += message.ByteSize()
        return message

    def has_room(self, settings: ServerSettings) -> bool:
        """Whether another message may be kept; one always may."""
        return not self.slots or self._bytes < settings.limits.max_message_bytes

    def add(self, message: pb.Slot) -> None:
        self.slots.append((message, time.perf_counter()))
        self._bytes += message.ByteSize()

    def take(self) -> pb.Slot | None:
        """Return the oldest message, None if there is none."""
        if not self.slots:
            return None
        message, self.came_s = self.slots.popleft()
        self._bytes -= message.ByteSize()
        return message


def _abort(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    context.abort(*refusal(error))
    raise AssertionError("abort() never returns")
