"""The wire format: arrays to messages and back. It needs numpy; tensors of torch are converted at its edge.

``splitinfer.proto`` is the contract; :mod:`~splitinfer.wire.messages` has the two functions per message that the
runtime needs. ``docs/wire.md`` explains the format.
"""

from __future__ import annotations

from splitinfer.wire.codecs import Wire
from splitinfer.wire.limits import LimitError, WireLimits
from splitinfer.wire.messages import (
    MAX_PROTOCOL_VERSION,
    MIN_PROTOCOL_VERSION,
    OpenedRequest,
    Reply,
    Request,
    RequestHead,
    Writer,
    decode_reply,
    encode_reply,
    encode_request,
    open_request,
    reply_writer,
    request_writer,
)
from splitinfer.wire.pieces import InPieces, LongMessage, is_piece, whole_message
from splitinfer.wire.tensors import unpack

__all__ = [
    "MAX_PROTOCOL_VERSION",
    "MIN_PROTOCOL_VERSION",
    "InPieces",
    "LimitError",
    "LongMessage",
    "OpenedRequest",
    "Reply",
    "Request",
    "RequestHead",
    "Wire",
    "WireLimits",
    "Writer",
    "decode_reply",
    "encode_reply",
    "encode_request",
    "is_piece",
    "open_request",
    "reply_writer",
    "request_writer",
    "unpack",
    "whole_message",
]
