"""The bytes of ``InferRequest`` and ``InferReply``: a header, padding, and a payload that is never copied.

Both messages have the same three fields. protobuf's own classes copy a ``bytes`` field when it is set, when the message
is serialized, when it is parsed and at each access. Here writing is one join of buffers, and reading finds the fields
and returns the payload as a view of the received bytes. What is written and read is plain protobuf all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from splitinfer.errors import InputError
from splitinfer.wire.limits import LimitError

_HEADER, _PADDING, _PAYLOAD = 1, 2, 3
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_TAG = {field: bytes([field << 3 | _BYTES]) for field in (_HEADER, _PADDING, _PAYLOAD)}

_MAX_VARINT_BYTES = 10
_MAX_FIELD = (1 << 29) - 1
_MAX_LENGTH = (1 << 31) - 1

# The payload starts 16 bytes past a multiple of 64. CPython keeps the bytes of a large ``bytes`` object 48 bytes past
# one (16 of malloc, 32 of its own), so that tensors of large messages lie on 64-byte addresses, and on 16-byte ones in
# any case.
PAYLOAD_ALIGNMENT = 64
PAYLOAD_REMAINDER = 16
CONTENT_REMAINDER = PAYLOAD_ALIGNMENT - PAYLOAD_REMAINDER
_ZEROS = bytes(PAYLOAD_ALIGNMENT)
_SMALL = [bytes((value,)) for value in range(0x80)]


def write_envelope(header: bytes, payload: Iterable[bytes | memoryview], payload_bytes: int) -> bytes:
    """Return the bytes of a message.

    Args:
        header: the serialized header.
        payload: buffers of the payload in order.
        payload_bytes: their total size.
    """
    start = _TAG[_HEADER] + varint(len(header)) + header
    if not payload_bytes:
        return start
    tag = _TAG[_PAYLOAD] + varint(payload_bytes)
    # Two more bytes are the padding's own tag and length.
    padding = (PAYLOAD_REMAINDER - len(start) - 2 - len(tag)) % PAYLOAD_ALIGNMENT
    return b"".join((start, _TAG[_PADDING], bytes((padding,)), _ZEROS[:padding], tag, *payload))


class Envelope(NamedTuple):
    """A message's serialized header and a view of its payload.

    ``payload_is_last`` says that the message is one header first, and ends with its payload.
    """

    header: bytes
    payload: memoryview
    payload_is_last: bool


def read_envelope(data: bytes | memoryview, *, max_header_bytes: int, max_fields: int = 1024) -> Envelope:
    """Return the serialized header and a view of the payload.

    Fields may come in any order, several times (the parts of the header are joined and the last payload counts, as
    protobuf says), or not at all; unknown fields are skipped.

    Raises:
        InputError: the bytes are no protobuf message.
        LimitError: the header or the number of fields is over its limit.
    """
    view = memoryview(data)
    headers: list[memoryview] = []
    header_bytes = 0
    payload = view[:0]
    payload_is_last = False
    for field, start, end in read_fields(data, max_fields=max_fields):
        if field == _HEADER:
            header_bytes += end - start
            if header_bytes > max_header_bytes:
                raise LimitError(f"a header of {header_bytes} bytes; max_header_bytes is {max_header_bytes}")
            headers.append(view[start:end])
        elif field == _PAYLOAD:
            payload = view[start:end]
            payload_is_last = end == len(data)
    return Envelope(b"".join(headers), payload, payload_is_last and len(headers) == 1 and data[0] == _TAG[_HEADER][0])


def read_fields(
    data: bytes | memoryview, position: int = 0, size: int | None = None, *, max_fields: int
) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and end of every field that has a length, in order; others are skipped.

    Args:
        data: with the bytes of a message.
        position, size: where in it the message starts and ends; everything by default.
        max_fields: taken, the skipped ones too.

    Raises:
        InputError: the bytes are no protobuf message.
        LimitError: it has more fields.
    """
    size = len(data) if size is None else size
    fields = 0
    while position < size:
        fields += 1
        if fields > max_fields:
            raise LimitError(f"more than {max_fields} fields in one message; max_fields is {max_fields}")
        tag, position = read_varint(data, position)
        field, kind = tag >> 3, tag & 7
        if not 0 < field <= _MAX_FIELD:
            raise InputError(f"malformed message: no field has the number {field}")
        if kind == _BYTES:
            length, start = read_varint(data, position)
            position = start + length
            if length > _MAX_LENGTH or position > size:
                raise InputError(f"malformed message: field {field} claims {length} bytes and {size - start} are left")
            yield field, start, position
        elif kind == _VARINT:
            _, position = read_varint(data, position)
        elif kind in (_FIXED32, _FIXED64):
            position += 4 if kind == _FIXED32 else 8
            if position > size:
                raise InputError(f"malformed message: field {field} is cut off")
        else:
            raise InputError(f"malformed message: field {field} has wire type {kind}")


def varint(value: int) -> bytes:
    """Return a number as protobuf writes it."""
    if value < 0x80:
        return _SMALL[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """Return the number at a position, and the position after it.

    Raises:
        InputError: there is none.
    """
    value = 0
    try:
        for index in range(_MAX_VARINT_BYTES):
            byte = data[position + index]
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, position + index + 1
    except IndexError:
        raise InputError("malformed message: it ends inside a number") from None
    raise InputError("malformed message: a number of more than ten bytes")
