"""Requests and replies: dataclasses to bytes and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from splitinfer.errors import InputError
from splitinfer.wire import splitinfer_pb2 as pb
from splitinfer.wire.codecs import RAW, Codec, Wire
from splitinfer.wire.envelope import read_envelope, write_envelope
from splitinfer.wire.limits import LimitError, WireLimits
from splitinfer.wire.tensors import Payload, pack, unpack

MIN_PROTOCOL_VERSION = 1
MAX_PROTOCOL_VERSION = 1


@dataclass(frozen=True, eq=False)
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


@dataclass(frozen=True, eq=False)
class Reply:
    """The answer to one request.

    Attributes:
        request_id: of the request.
        tensors: leaves of the model's output; empty on a refusal. A decoded reply holds arrays of numpy.
        refusal: gRPC status code and message, on streams only.
        queue_s: time that the request waited for a free processor, seconds.
        tail_s: time that the tail computed, seconds.
        server_s: time from the request's bytes to the output's tensors (reading, queue and tail), seconds.
    """

    request_id: int
    tensors: Sequence[Any] = ()
    refusal: tuple[int, str] | None = None
    queue_s: float = 0.0
    tail_s: float = 0.0
    server_s: float = 0.0


def encode_request(request: Request, wire: Wire) -> bytes:
    """Return the bytes of a request; the tensors are copied once, into the result.

    Raises:
        InputError: a tensor that has no form on the wire.
        LimitError: the message or its number of tensors is over the limit.
    """
    payload = pack(request.tensors, wire.codec)
    header = pb.RequestHeader(
        protocol_version=request.protocol_version,
        request_id=request.request_id,
        model=request.model,
        fingerprint=request.fingerprint,
        cut=request.cut,
        tensors=payload.headers,
    )
    if request.reply_codec is not RAW:
        header.reply_codec.id, header.reply_codec.version = request.reply_codec.number, request.reply_codec.version
    return _encode(header, payload, wire.limits)


def open_request(data: bytes, wire: Wire) -> tuple[pb.RequestHeader, memoryview]:
    """Return the header of a request and a view of its payload, for :func:`splitinfer.wire.tensors.unpack`.

    The two steps are apart so that a server can refuse a model, cut or version before it looks at tensors, and can
    name the request's id when the tensors are broken.

    Raises:
        InputError: malformed.
        LimitError: the header is over its limit.
    """
    header = pb.RequestHeader()
    return header, _decode(header, data, wire)


def encode_reply(reply: Reply, wire: Wire) -> bytes:
    """Return the bytes of a reply.

    Raises:
        InputError: a tensor that has no form on the wire.
        LimitError: the message or its number of tensors is over the limit.
    """
    payload = pack(reply.tensors, wire.codec)
    header = pb.ReplyHeader(
        request_id=reply.request_id,
        tensors=payload.headers,
        queue_s=reply.queue_s,
        tail_s=reply.tail_s,
        server_s=reply.server_s,
    )
    if reply.refusal is not None:
        header.refusal.code, header.refusal.message = reply.refusal
    return _encode(header, payload, wire.limits)


def decode_reply(data: bytes, wire: Wire) -> Reply:
    """Return the reply; its tensors lie on the memory of ``data``.

    Raises:
        InputError: malformed, or header and payload do not fit together.
        LimitError: over a limit.
    """
    header = pb.ReplyHeader()
    payload = _decode(header, data, wire)
    return Reply(
        request_id=header.request_id,
        tensors=unpack(header.tensors, payload, wire),
        refusal=(header.refusal.code, header.refusal.message) if header.HasField("refusal") else None,
        queue_s=header.queue_s,
        tail_s=header.tail_s,
        server_s=header.server_s,
    )


def _encode(header: pb.RequestHeader | pb.ReplyHeader, payload: Payload, limits: WireLimits) -> bytes:
    if len(payload.headers) > limits.max_tensors:
        raise LimitError(f"{len(payload.headers)} tensors in one message; max_tensors is {limits.max_tensors}")
    if payload.size > limits.max_message_bytes:  # before the join, which allocates as much
        raise LimitError(
            f"tensors of {payload.size} bytes in one message; max_message_bytes is {limits.max_message_bytes}"
        )
    data = write_envelope(header.SerializeToString(), payload.buffers, payload.size)
    if len(data) > limits.max_message_bytes:
        raise LimitError(f"a message of {len(data)} bytes; max_message_bytes is {limits.max_message_bytes}")
    return data


def _decode(header: pb.RequestHeader | pb.ReplyHeader, data: bytes, wire: Wire) -> memoryview:
    limits = wire.limits
    serialized, payload = read_envelope(data, max_header_bytes=limits.max_header_bytes, max_fields=limits.max_fields)
    try:
        header.ParseFromString(serialized)
    except DecodeError as error:
        raise InputError(f"malformed header: {error}") from None
    return payload
