"""A lane without threads of gRPC's Python layer between the caller and the network.

The public interface hands every message of a stream to a thread that sends it, and every reply from a thread that
receives it: two wake-ups per request, which cost more than a small message itself. Here the caller's own thread starts
the operations "send this" and "receive the reply" on gRPC's core and waits for them, as gRPC's own blocking calls do.
That part of grpcio is not public; where another version differs, :func:`open_lane` gives the public stream.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
from collections.abc import Iterator
from typing import Any, Protocol

import grpc

from splitinfer.errors import EdgeUnavailableError, RemoteError
from splitinfer.runtime.lane import Lane
from splitinfer.runtime.statuses import error_of_status
from splitinfer.runtime.transport import INFER_STREAM, Metadata
from splitinfer.wire import LongMessage

logger = logging.getLogger(__name__)

_FLAGS = 0
_INITIAL, _STATUS, _SENDING, _REPLY = "initial metadata", "status", "sending", "reply"


class RequestLane(Protocol):
    """An open stream for one request at a time."""

    def begin(self, data: bytes | LongMessage) -> None: ...

    def finish(self) -> bytes: ...

    def cancel(self) -> None: ...


def open_lane(channel: grpc.Channel, target: str, metadata: Metadata = ()) -> RequestLane:
    """Open a stream, by the short way where this grpcio has it.

    Raises:
        EdgeUnavailableError: the channel was closed.
    """
    try:
        return DirectLane(channel, target, metadata)
    except ValueError as error:  # gRPC's word for a channel that another thread has closed meanwhile
        raise EdgeUnavailableError(f"lost the edge at {target}", status="UNAVAILABLE") from error
    except (ImportError, AttributeError, TypeError) as error:
        logger.info("grpcio %s offers no direct calls (%s); using its public streams", grpc.__version__, error)
        return Lane(channel, target, metadata)


def unlock(channel: grpc.Channel) -> None:
    """Release the lock of a channel that this thread holds after it was interrupted inside grpcio.

    There Ctrl-C may come when the lock was taken and nobody is bound to release it yet: then every other thread that
    uses the channel waits for ever, and with them whoever would end their calls.
    The lock is looked for where grpcio keeps it; where another version keeps it elsewhere, nothing is done.
    """
    for state in gc.get_referents(getattr(channel, "_channel", None)):
        for lock in gc.get_referents(state):
            if isinstance(lock, threading.Condition):
                with contextlib.suppress(RuntimeError):  # it is not, or no longer, this thread's
                    while True:
                        lock.release()


class DirectLane:
    """An open stream whose replies the caller's thread waits for itself.

    Raises:
        ImportError, AttributeError, TypeError: this grpcio has other internals.
    """

    def __init__(self, channel: grpc.Channel, target: str, metadata: Metadata = ()) -> None:
        from grpc._cython import cygrpc

        self._target = target
        self._send = cygrpc.SendMessageOperation
        self._receive = cygrpc.ReceiveMessageOperation
        self._is_message = cygrpc.OperationType.receive_message
        self._is_status = cygrpc.OperationType.receive_status_on_client
        self._error: RemoteError | None = None
        self._is_torn = False
        self._is_cancelled = False
        self._unsent: Iterator[bytes] = iter(())
        self._reading = threading.Lock()
        # Tags of operations that the core has yet to report.
        self._due = {_INITIAL, _STATUS}
        core: Any = channel._channel
        self._channel = channel
        initial = cygrpc.SendInitialMetadataOperation(metadata, _FLAGS), cygrpc.ReceiveInitialMetadataOperation(_FLAGS)
        self._call: Any = core.segregated_call(
            cygrpc.PropagationConstants.GRPC_PROPAGATE_DEFAULTS,
            INFER_STREAM.encode(),
            None,  # host: the channel's
            None,  # deadline: a lane stays open
            metadata,
            None,  # credentials
            (
                (initial, _INITIAL),
                ((cygrpc.ReceiveStatusOnClientOperation(_FLAGS),), _STATUS),
            ),
            None,  # census context
            None,  # registered call
        )

    def begin(self, data: bytes | LongMessage) -> None:
        """Send a request, of a long one the first piece; returns at once.

        Raises:
            RemoteError: the stream has ended, or nobody took the last reply.
        """
        try:
            with self._reading:
                self._begin(data)
        finally:
            self._let_go_if_cancelled()

    def _begin(self, data: bytes | LongMessage) -> None:
        if self._error is not None:
            raise self._error
        if self._is_torn or _REPLY in self._due:
            raise EdgeUnavailableError(f"lost a reply of the edge at {self._target}", status="UNAVAILABLE")
        self._unsent = iter((data,)) if isinstance(data, bytes) else data.pieces()
        # The core sends one message at a time; of the last one of the request before it may have to say yet that it
        # is sent, although the reply is here. Then this one goes in :meth:`finish`.
        if _SENDING not in self._due:
            self._operate((self._send(next(self._unsent), _FLAGS),), _SENDING)
        self._operate((self._receive(_FLAGS),), _REPLY)  # once the request is on its way

    def finish(self) -> bytes:
        """Send what is left of the request, and wait for the reply.

        Raises:
            RemoteError: the stream has ended.
        """
        try:
            with self._reading:
                return self._finish()
        finally:
            self._let_go_if_cancelled()

    def _finish(self) -> bytes:
        piece = None
        while _REPLY in self._due:
            if piece is None:  # made while the one before is on its way
                piece = next(self._unsent, None)
            if piece is not None and _SENDING not in self._due:
                self._operate((self._send(piece, _FLAGS),), _SENDING)
                piece = None
                continue
            reply = self._next()
            if reply is not None:
                return reply
        self._read_to_the_end()  # no message came: the stream has ended, and its status says why
        assert self._error is not None
        raise self._error

    def _operate(self, operations: tuple[object, ...], tag: str) -> None:
        try:
            if self._call.operate(operations, tag):
                self._due.add(tag)
        except BaseException:  # interrupted: nobody knows whether the core has begun
            self._tear()
            raise

    def _tear(self) -> None:
        self._is_torn = True
        unlock(self._channel)

    def cancel(self) -> None:
        """End the stream now; a waiting :meth:`finish` raises. Safe to call from another thread."""
        if self._error is None:
            self._call.cancel(grpc.StatusCode.CANCELLED.value[0], "cancelled by the client")
        # Until its last event is read, the core keeps the call and with it the connection. A thread that waits in
        # :meth:`finish` reads them itself. After an interruption one may never come, and nobody waits for it.
        if self._is_torn:
            threading.Thread(target=self._read_what_comes, name="splitinfer-torn", daemon=True).start()
            return
        self._is_cancelled = True
        self._let_go_if_cancelled()

    def _let_go_if_cancelled(self) -> None:
        """Read what is left of a cancelled call; while another thread reads, it is left to that one."""
        if self._is_cancelled and not self._is_torn and self._reading.acquire(blocking=False):
            try:
                self._read_to_the_end()
            finally:
                self._reading.release()

    def _read_to_the_end(self) -> None:
        while self._due:
            self._next()

    def _read_what_comes(self) -> None:
        """Read what is due but one event, which the interruption has lost: who waits for it waits for ever."""
        with contextlib.suppress(KeyError):  # the core's word for a call that is over
            for _ in range(len(self._due) - 1):
                self._next()

    def _next(self) -> bytes | None:
        """Wait for one event of the core and return the message in it, if there is one."""
        try:
            event = self._call.next_event()
            self._due.discard(event.tag)
            for operation in event.batch_operations:
                kind = operation.type()
                if kind == self._is_message:
                    message: bytes | None = operation.message()
                    return message
                if kind == self._is_status:
                    self._error = error_of_status(
                        operation.code(), operation.details() or "", self._target, operation.trailing_metadata() or ()
                    )
        except BaseException:  # interrupted: an event that the core had just handed over is lost
            self._tear()
            raise
        return None
