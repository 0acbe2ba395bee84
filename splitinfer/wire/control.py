"""What a device says on the control stream of a live run, from bytes that may be anybody's.

Repeated fields cost two bytes to send and far more to read, so that they are counted before protobuf reads them.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import DecodeError

from splitinfer.errors import InputError
from splitinfer.wire import splitinfer_pb2 as pb
from splitinfer.wire.envelope import read_fields
from splitinfer.wire.limits import LimitError, WireLimits

_SLOT = pb.DeviceMessage.DESCRIPTOR.fields_by_name["slot"].number
_FAREWELL = pb.DeviceMessage.DESCRIPTOR.fields_by_name["farewell"].number
_PIECES = pb.Slot.DESCRIPTOR.fields_by_name["pieces"].number


def read_device_message(data: bytes, limits: WireLimits) -> pb.DeviceMessage:
    """Read a ``DeviceMessage``.

    Of a slot, everything but the pieces of requests is held to ``max_header_bytes``, and the number of its fields to
    ``max_fields``; the whole of a hello to ``max_header_bytes``.

    Raises:
        InputError: it is none, or several in one.
        LimitError: it is over a limit.
    """
    fields = list(read_fields(data, max_fields=1))
    kind, start, end = fields[0] if fields else (0, 0, 0)
    own = len(data)
    if kind == _SLOT:
        own = _slot_bytes(data, start, end, limits.max_fields)
    elif kind == _FAREWELL:  # a latency per task
        own = 0
    if own > limits.max_header_bytes:
        raise LimitError(f"a message with {own} bytes of its own; max_header_bytes is {limits.max_header_bytes}")
    try:
        return pb.DeviceMessage.FromString(data)
    except DecodeError as error:
        raise InputError(f"malformed message: {error}") from None


def _slot_bytes(data: bytes, start: int, end: int, max_fields: int) -> int:
    """Return the bytes of a slot's message beside the pieces in it."""
    pieces: Iterator[int] = (
        last - first for field, first, last in read_fields(data, start, end, max_fields=max_fields) if field == _PIECES
    )
    return end - start - sum(pieces)
