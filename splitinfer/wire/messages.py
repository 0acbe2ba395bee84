"""Requests and replies: dataclasses to bytes and back.

Of what a model sends at one cut and in one codec, only the request's id, the times of a reply and the payload change.
The bytes around them are made once by protobuf's classes and kept: on the way out by what they say, on the way in by
the size of the message. So the usual message is one join of buffers, or two comparisons of bytes, and any other,
in any order of fields, is read by protobuf. What is written and read is plain protobuf in both cases.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any, Generic, TypeVar, overload

import numpy as np
from google.protobuf.message import DecodeError

from splitinfer.errors import InputError
from splitinfer.wire import splitinfer_pb2 as pb
from splitinfer.wire.codecs import RAW, Codec, Wire
from splitinfer.wire.dtypes import Array
from splitinfer.wire.envelope import Envelope, read_envelope, read_varint, varint, write_envelope
from splitinfer.wire.limits import LimitError, WireLimits
from splitinfer.wire.pieces import InPieces, LongMessage
from splitinfer.wire.tensors import (
    Record,
    View,
    pack,
    plain_views,
    read_arrays,
    read_records,
    read_views,
)

MIN_PROTOCOL_VERSION = 1
MAX_PROTOCOL_VERSION = 1

# What is kept of messages, on the way out and in; of a stranger's only up to this size.
_KEPT_FRAMES = 1024
_LARGEST_KEPT_BYTES = 2048

# The fields that change come first in a header: version and id of a request, id and times of a reply, with their tags.
_REQUEST_START, _REQUEST_ID, _REPLY_ID = b"\x08", b"\x10", b"\x08"
_TIMES = struct.Struct("<BdBdBd")
_QUEUE_S, _TAIL_S, _SERVER_S = 0x21, 0x29, 0x31
_CHANGING = {"protocol_version", "request_id", "trace_context", "queue_s", "tail_s", "server_s"}
TRACE_BYTES = 25
_MAX_RETRY_AFTER_MS = 0xFFFF_FFFF
_TRACE = b"\x42" + bytes((TRACE_BYTES,))


_Header = TypeVar("_Header", pb.RequestHeader, pb.ReplyHeader)
_Head = TypeVar("_Head")


@dataclass(eq=False, slots=True)
class Request:
    """One request for the tail of an inference.

    Attributes:
        model: the model's name on the server.
        fingerprint: hash of the model that the head belongs to.
        cut: the tail starts after this cut.
        tensors: what crosses the cut: tensors of torch or arrays of numpy.
        request_id: repeated in the reply.
        reply_codec: that the reply's tensors are wanted in.
        protocol_version: version of the sender.
    """

    model: str
    fingerprint: str
    cut: int
    tensors: Sequence[Any]
    request_id: int = 0
    reply_codec: Codec = RAW
    protocol_version: int = MAX_PROTOCOL_VERSION


@dataclass(eq=False, slots=True)
class Reply:
    """The answer to one request.

    Attributes:
        request_id: of the request.
        tensors: leaves of the model's output; empty on a refusal. A decoded reply holds arrays of numpy.
        refusal: gRPC status code and message, on streams only.
        retry_after_s: with a refusal, when to ask again, seconds; 0 where it does not say.
        queue_s: time that the request waited for a free processor, seconds.
        tail_s: time that the tail computed, seconds.
        server_s: time from the request's bytes to the output's tensors (reading, queue and tail), seconds.
    """

    request_id: int
    tensors: Sequence[Any] = ()
    refusal: tuple[int, str] | None = None
    retry_after_s: float = 0.0
    queue_s: float = 0.0
    tail_s: float = 0.0
    server_s: float = 0.0


class Writer:
    """Writes the messages of one kind: requests of one model, cut and codec, or replies of one tail.

    Their tensors mostly lie in memory as the last ones did. Then nothing about them has to be found out again, and a
    message is one join of buffers.
    """

    def __init__(self, wire: Wire, frame: Callable[[tuple[Record, ...], int, int], tuple[bytes, bytes]]) -> None:
        """Prepare messages.

        Args:
            wire: this end of the wire.
            frame: the bytes before and after what changes, given the payload's records and size and the size of what
                changes.
        """
        self._wire = wire
        self._frame = frame
        self._last: tuple[list[tuple[Any, ...]], list[bytes], int, bytes, bytes, int] | None = None

    @overload
    def write(self, tensors: Sequence[Any], number: int, changing: bytes = b"") -> bytes: ...

    @overload
    def write(
        self, tensors: Sequence[Any], number: int, changing: bytes, in_pieces: InPieces | None
    ) -> bytes | LongMessage: ...

    def write(
        self, tensors: Sequence[Any], number: int, changing: bytes = b"", in_pieces: InPieces | None = None
    ) -> bytes | LongMessage:
        """Return the bytes of a message.

        Args:
            tensors: what it carries.
            number: its id.
            changing: what else changes, and stands behind the id.
            in_pieces: which messages are returned as their buffers; none by default.

        Raises:
            InputError: a tensor that has no form on the wire.
            LimitError: the message or its number of tensors is over the limit.
        """
        message_id = varint(number) + changing
        last = self._last
        if last is not None and last[2] == len(message_id) and len(last[0]) == len(tensors):
            layouts, gaps, _, before, after, size = last
            parts: list[Any] = [before, message_id, after]
            try:
                for tensor, gap, layout in zip(tensors, gaps, layouts, strict=True):
                    array = tensor if type(tensor) is np.ndarray else tensor.numpy()
                    if (array.shape, array.strides, array.dtype) != layout:
                        break
                    parts += gap, array
                else:
                    if in_pieces is not None and size >= in_pieces.from_bytes:
                        return LongMessage(parts, size, in_pieces.piece_bytes)
                    return b"".join(parts)
            except (RuntimeError, TypeError, AttributeError):  # elsewhere, lazily negated, or of a dtype of torch alone
                pass
        payload = pack(tensors, self._wire.codec)
        before, after = self._frame(tuple(payload.records), payload.size, len(message_id))
        buffers = before, message_id, after, *payload.buffers
        size = len(before) + len(message_id) + len(after) + payload.size
        _check_size(len(payload.records), size, self._wire.limits)
        self._last = None
        ends = [0, *(record.offset + record.size for record in payload.records)]
        gaps = [bytes(max(0, record.offset - end)) for record, end in zip(payload.records, ends, strict=False)]
        if all(_lies_plainly(record, end) for record, end in zip(payload.records, ends, strict=False)):
            layouts = [(record.spec.shape, record.spec.strides, record.spec.dtype) for record in payload.records]
            self._last = layouts, gaps, len(message_id), before, after, size
        if in_pieces is not None and size >= in_pieces.from_bytes:
            return LongMessage(buffers, size, in_pieces.piece_bytes)
        return b"".join(buffers)


def _lies_plainly(record: Record, end: int) -> bool:
    """Whether the bytes of a tensor are its memory, row by row, and stand behind those of the one before."""
    spec = record.spec
    return (
        record.codec is RAW
        and record.offset >= end
        and record.size == spec.nbytes > 0
        and not spec.stride_order
        and not spec.expanded_dims
        and not spec.dtype.names
    )


def request_writer(
    model: str,
    fingerprint: str,
    cut: int,
    wire: Wire,
    *,
    reply_codec: Codec = RAW,
    protocol_version: int = MAX_PROTOCOL_VERSION,
) -> Writer:
    """Return what writes requests for one tail; arguments as in :class:`Request`."""
    codec = None if reply_codec is RAW else (reply_codec.number, reply_codec.version)
    return Writer(wire, partial(_request_frame, model, fingerprint, cut, codec, protocol_version))


def trace_field(context: bytes) -> bytes:
    """Return a trace context as it stands behind a request's id; no bytes for none."""
    return _TRACE + context if context else b""


def encode_request(request: Request, wire: Wire) -> bytes:
    """Return the bytes of a request; the tensors are copied once, into the result.

    Raises:
        InputError: a tensor that has no form on the wire.
        LimitError: the message or its number of tensors is over the limit.
    """
    writer = request_writer(
        request.model,
        request.fingerprint,
        request.cut,
        wire,
        reply_codec=request.reply_codec,
        protocol_version=request.protocol_version,
    )
    return writer.write(request.tensors, request.request_id)


@dataclass(frozen=True)
class RequestHead:
    """What a request is about, checked in itself; the same object for the usual requests of one model, cut and codec.

    Attributes:
        protocol_version, model, fingerprint, cut: as in :class:`Request`.
        reply_codec: number and version of the codec that the reply is wanted in; None for raw.
        tensors: what the payload holds, or why that cannot be.
    """

    protocol_version: int = 0
    model: str = ""
    fingerprint: str = ""
    cut: int = 0
    reply_codec: tuple[int, int] | None = None
    tensors: tuple[Record, ...] | InputError = ()

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.model, self.fingerprint, self.cut, self.reply_codec))


class OpenedRequest:
    """A request of which the tensors have not been looked at.

    Attributes:
        request_id: of the request.
        head: what it is about.
        trace_context: of the sender's span, 25 bytes, or none.
    """

    __slots__ = ("_data", "_payload", "_views", "head", "request_id", "trace_context")

    def __init__(
        self,
        request_id: int,
        head: RequestHead,
        data: bytes | memoryview,
        payload: memoryview | int,
        views: tuple[View, ...] | None,
        trace_context: bytes = b"",
    ) -> None:
        self.request_id = request_id
        self.trace_context = trace_context
        self.head = head
        self._data = data
        self._payload = payload
        self._views = views

    @property
    def payload(self) -> memoryview:
        return memoryview(self._data)[self._payload :] if isinstance(self._payload, int) else self._payload

    def arrays(self) -> tuple[Array, ...]:
        """Return the tensors, on the payload's own memory where the codec allows.

        Raises:
            InputError, LimitError: as :func:`splitinfer.wire.tensors.unpack`.
        """
        if self._views is not None:
            return read_views(self._views, self._data)
        return _arrays(self.head.tensors, self.payload)


def open_request(data: bytes | memoryview, wire: Wire) -> OpenedRequest:
    """Return the header of a request and a view of its payload.

    Reading the tensors is a step of its own so that a server can refuse a model, cut or version before it looks at
    them, and can name the request's id when they are broken.

    Raises:
        InputError: malformed.
        LimitError: the header is over its limit.
    """
    frame = _request_frames.get(len(data))
    start = data if type(data) is bytes else bytes(data[:_LARGEST_KEPT_BYTES])
    if frame is not None and start.startswith(frame.before) and (frame.wire is wire or frame.wire == wire):
        request_id, stop = read_varint(start, len(frame.before))
        trace_context = b""
        if stop != frame.stop and start.startswith(_TRACE, stop):
            trace_context = start[stop + len(_TRACE) : stop + len(_TRACE) + TRACE_BYTES]
            stop += len(_TRACE) + TRACE_BYTES
        if stop == frame.stop and start[stop : frame.payload_start] == frame.after:
            return OpenedRequest(request_id, frame.head, data, frame.payload_start, frame.views, trace_context)
    envelope = _open(data, wire)
    header = _parsed(pb.RequestHeader, envelope.header)
    codec = header.reply_codec
    head = RequestHead(
        header.protocol_version,
        header.model,
        header.fingerprint,
        header.cut,
        (codec.id, codec.version) if header.HasField("reply_codec") else None,
        _records(header.tensors, len(envelope.payload), wire),
    )
    first = _REQUEST_START + varint(header.protocol_version) + _REQUEST_ID
    trace_context = header.trace_context if len(header.trace_context) == TRACE_BYTES else b""
    changing = varint(header.request_id) + trace_field(trace_context)
    _keep(_request_frames, start, len(data), envelope, header, (first, changing), head, head.tensors, wire)
    return OpenedRequest(header.request_id, head, data, envelope.payload, None, trace_context)


def reply_writer(wire: Wire) -> Writer:
    """Return what writes replies of one tail, for :func:`encode_reply`."""
    return Writer(wire, partial(_reply_frame, None, 0))


def encode_reply(reply: Reply, wire: Wire, writer: Writer | None = None) -> bytes:
    """Return the bytes of a reply.

    Args:
        reply: to encode.
        wire: this end of the wire.
        writer: of replies with tensors, if several are to come.

    Raises:
        InputError: a tensor that has no form on the wire.
        LimitError: the message or its number of tensors is over the limit.
    """
    if writer is None:
        retry_after_ms = min(round(reply.retry_after_s * 1e3), _MAX_RETRY_AFTER_MS)
        writer = Writer(wire, partial(_reply_frame, reply.refusal, retry_after_ms))
    times = _TIMES.pack(_QUEUE_S, reply.queue_s, _TAIL_S, reply.tail_s, _SERVER_S, reply.server_s)
    return writer.write(reply.tensors, reply.request_id, times)


def decode_reply(data: bytes, wire: Wire) -> Reply:
    """Return the reply; its tensors lie on the memory of ``data``.

    Raises:
        InputError: malformed, or header and payload do not fit together.
        LimitError: over a limit.
    """
    frame = _reply_frames.get(len(data))
    if frame is not None and data.startswith(frame.before) and (frame.wire is wire or frame.wire == wire):
        request_id, at = read_varint(data, len(frame.before))
        if at + _TIMES.size == frame.stop and data[frame.stop : frame.payload_start] == frame.after:
            queue, queue_s, tail, tail_s, server, server_s = _TIMES.unpack_from(data, at)
            if (queue, tail, server) == (_QUEUE_S, _TAIL_S, _SERVER_S):
                refusal, retry_after_s, tensors = frame.head
                if frame.views is not None:
                    arrays = read_views(frame.views, data)
                else:
                    arrays = _arrays(tensors, memoryview(data)[frame.payload_start :])
                return Reply(request_id, arrays, refusal, retry_after_s, queue_s, tail_s, server_s)
    envelope = _open(data, wire)
    header = _parsed(pb.ReplyHeader, envelope.header)
    refusal = (header.refusal.code, header.refusal.message) if header.HasField("refusal") else None
    retry_after_s = header.refusal.retry_after_ms / 1e3
    tensors = _records(header.tensors, len(envelope.payload), wire)
    times = header.queue_s, header.tail_s, header.server_s
    changing = varint(header.request_id)
    changing += _TIMES.pack(_QUEUE_S, header.queue_s, _TAIL_S, header.tail_s, _SERVER_S, header.server_s)
    head = refusal, retry_after_s, tensors
    _keep(_reply_frames, data, len(data), envelope, header, (_REPLY_ID, changing), head, tensors, wire)
    return Reply(header.request_id, _arrays(tensors, envelope.payload), refusal, retry_after_s, *times)


@lru_cache(_KEPT_FRAMES)
def _request_frame(
    model: str,
    fingerprint: str,
    cut: int,
    reply_codec: tuple[int, int] | None,
    protocol_version: int,
    records: tuple[Record, ...],
    payload_bytes: int,
    changing_bytes: int,
) -> tuple[bytes, bytes]:
    """Return the bytes of a request before and after its id and trace context, up to the payload."""
    header = pb.RequestHeader(
        model=model, fingerprint=fingerprint, cut=cut, tensors=[record.header() for record in records]
    )
    if reply_codec is not None:
        header.reply_codec.id, header.reply_codec.version = reply_codec
    start = _REQUEST_START + varint(protocol_version) + _REQUEST_ID
    return _around(start, changing_bytes, header.SerializeToString(), payload_bytes)


@lru_cache(_KEPT_FRAMES)
def _reply_frame(
    refusal: tuple[int, str] | None,
    retry_after_ms: int,
    records: tuple[Record, ...],
    payload_bytes: int,
    changing_bytes: int,
) -> tuple[bytes, bytes]:
    """Return the bytes of a reply before its id and after its times, up to the payload."""
    header = pb.ReplyHeader(tensors=[record.header() for record in records])
    if refusal is not None:
        header.refusal.code, header.refusal.message = refusal
        header.refusal.retry_after_ms = retry_after_ms
    return _around(_REPLY_ID, changing_bytes, header.SerializeToString(), payload_bytes)


def _around(start: bytes, gap: int, rest: bytes, payload_bytes: int) -> tuple[bytes, bytes]:
    """Return what stands before and after ``gap`` bytes of a header, of a message up to its payload."""
    header = start + bytes(gap) + rest
    frame = write_envelope(header, (), payload_bytes)
    at = 1 + len(varint(len(header))) + len(start)
    return frame[:at], frame[at + gap :]


@dataclass(frozen=True, slots=True, eq=False)
class _Frame(Generic[_Head]):
    """The bytes around id, times and payload of a message, and what they say to one end."""

    before: bytes
    stop: int
    after: bytes
    payload_start: int
    head: _Head
    views: tuple[View, ...] | None
    wire: Wire


_request_frames: dict[int, _Frame[RequestHead]] = {}
_reply_frames: dict[int, _Frame[tuple[tuple[int, str] | None, float, tuple[Record, ...] | InputError]]] = {}


def _keep(
    frames: dict[int, _Frame[_Head]],
    data: bytes,
    size: int,
    envelope: Envelope,
    header: pb.RequestHeader | pb.ReplyHeader,
    start: tuple[bytes, bytes],
    head: _Head,
    tensors: tuple[Record, ...] | InputError,
    wire: Wire,
) -> None:
    """Keep what a message says under its size, if its header starts as ours do: with what is the same and what changes.

    Fields are read from left to right, so a message that differs inside the latter and the payload says the same, as
    long as nothing after it is about the same fields.
    """
    at = 1 + len(varint(len(envelope.header)))
    stop = at + len(start[0]) + len(start[1])
    payload_start = size - len(envelope.payload)
    rest = envelope.header[stop - at :]
    if not envelope.payload_is_last or payload_start > _LARGEST_KEPT_BYTES or data[at:stop] != b"".join(start):
        return
    after = type(header).FromString(rest)
    if after.SerializeToString() != rest or {field.name for field, _ in after.ListFields()} & _CHANGING:
        return
    if len(frames) >= _KEPT_FRAMES:
        frames.clear()
    views = None
    if not isinstance(tensors, InputError):
        views = plain_views(tensors, payload_start, len(envelope.payload))
    before = data[: at + len(start[0])]
    frames[size] = _Frame(before, stop, data[stop:payload_start], payload_start, head, views, wire)


def _parsed(kind: type[_Header], serialized: bytes) -> _Header:
    try:
        return kind.FromString(serialized)
    except DecodeError as error:
        raise InputError(f"malformed header: {error}") from None


def _records(headers: Iterable[pb.TensorHeader], payload_bytes: int, wire: Wire) -> tuple[Record, ...] | InputError:
    try:
        return read_records(headers, payload_bytes, wire)
    except InputError as error:
        return error


def _arrays(tensors: tuple[Record, ...] | InputError, payload: memoryview) -> tuple[Array, ...]:
    if isinstance(tensors, InputError):
        raise type(tensors)(*tensors.args)  # another one, since a raised error collects where it has been
    return read_arrays(tensors, payload)


def _check_size(tensors: int, size: int, limits: WireLimits) -> None:
    if tensors > limits.max_tensors:
        raise LimitError(f"{tensors} tensors in one message; max_tensors is {limits.max_tensors}")
    if size > limits.max_message_bytes:
        raise LimitError(f"a message of {size} bytes; max_message_bytes is {limits.max_message_bytes}")


def _open(data: bytes | memoryview, wire: Wire) -> Envelope:
    limits = wire.limits
    return read_envelope(data, max_header_bytes=limits.max_header_bytes, max_fields=limits.max_fields)
