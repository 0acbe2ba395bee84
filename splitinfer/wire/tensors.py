"""Arrays to typed headers and payload buffers, and back.

The receiver trusts nothing: every number of a header is checked before memory is touched, in Python's own integers,
which do not overflow.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from math import prod
from typing import Any, NamedTuple

import numpy as np

from splitinfer.errors import InputError
from splitinfer.wire import splitinfer_pb2 as pb
from splitinfer.wire.codecs import RAW, Buffer, Codec, Wire
from splitinfer.wire.dtypes import Array, DType, dtype_number, dtype_of_number, name_of
from splitinfer.wire.layout import ArraySpec, dense
from splitinfer.wire.limits import LimitError

# Every record starts at a multiple of this within the payload: one cache line, and what torch's own allocator gives.
RECORD_ALIGNMENT = 64
_ZEROS = bytes(RECORD_ALIGNMENT)


class Record(NamedTuple):
    """Where a tensor's bytes lie in a payload, and what they are."""

    spec: ArraySpec
    codec: Codec
    offset: int
    size: int

    def header(self) -> pb.TensorHeader:
        """Return the typed header that says so."""
        return pb.TensorHeader(
            dtype=dtype_number(self.spec.dtype),  # type: ignore[arg-type]
            shape=self.spec.shape,
            stride_order=self.spec.stride_order,
            expanded_dims=self.spec.expanded_dims,
            codec=self.codec.number,
            codec_version=self.codec.version,
            byte_offset=self.offset,
            byte_size=self.size,
        )


@dataclass
class Payload:
    """Buffers that make up a payload, with the records in it."""

    records: list[Record] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    size: int = 0

    @cached_property
    def headers(self) -> list[pb.TensorHeader]:
        """The records as they are described on the wire."""
        return [record.header() for record in self.records]


def pack(tensors: Sequence[Any], codec: Codec = RAW) -> Payload:
    """Describe tensors and collect their memory, without copying dense ones.

    Two tensors that show the same memory in the same way in memory order are stored once.

    Args:
        tensors: tensors of torch or arrays of numpy.
        codec: for those that it takes; the others are sent raw.

    Raises:
        InputError: a tensor of a dtype or layout that has no form on the wire.
    """
    payload = Payload()
    seen: dict[tuple[object, ...], tuple[int, int, Codec]] = {}
    alive: list[Array] = []  # or the address of a freed copy could come back as another tensor's
    for tensor in tensors:
        array = _as_array(tensor)
        dtype_number(array.dtype)  # refuses what has no form on the wire
        spec, stored = dense(array)
        alive.append(stored)
        chosen = codec if codec.takes(spec.dtype) else RAW
        key: tuple[object, ...] = ()
        if len(tensors) > 1:
            # Raw bytes have no axes, so other views of them count as the same.
            key = (stored.__array_interface__["data"][0], spec.elements, spec.dtype, None if chosen is RAW else spec)
        place = seen.get(key) if spec.elements else (0, 0, RAW)
        if place is None:
            buffer = chosen.encode(stored, spec)
            if buffer is None:
                buffer, chosen = RAW.encode(stored, spec), RAW
            gap = -payload.size % RECORD_ALIGNMENT
            if gap:
                payload.buffers.append(_ZEROS[:gap])
            place = (payload.size + gap, len(buffer), chosen)
            payload.buffers.append(buffer)
            payload.size = place[0] + place[1]
            seen[key] = place
        payload.records.append(Record(spec, place[2], place[0], place[1]))
    return payload


def unpack(headers: Iterable[pb.TensorHeader], payload: memoryview, wire: Wire) -> tuple[Array, ...]:
    """Return the arrays that headers describe, on the payload's own memory where the codec allows.

    Such arrays are read-only and keep the payload alive.

    Raises:
        InputError: headers and payload do not fit together; the message names the tensor and the field.
        LimitError: a tensor, or all together, are over a limit.
    """
    return read_arrays(read_records(headers, len(payload), wire), payload)


def read_records(headers: Iterable[pb.TensorHeader], payload_bytes: int, wire: Wire) -> tuple[Record, ...]:
    """Check headers against each other, the limits and the size of the payload that they describe.

    Raises:
        InputError, LimitError: as :func:`unpack`.
    """
    headers = list(headers)
    limits = wire.limits
    if len(headers) > limits.max_tensors:
        raise LimitError(f"{len(headers)} tensors in one message; max_tensors is {limits.max_tensors}")
    records: list[Record] = []
    seen: dict[tuple[object, ...], int] = {}
    end = decoded = 0
    for index, header in enumerate(headers):
        with _naming_tensor(index):
            record = _check_record(header, wire)
            spec, codec, offset, size = record
            if seen.get(place := _place(record)) != spec.elements:
                if size and offset < end:
                    raise InputError(f"byte_offset {offset} lies inside another tensor's bytes")
                if offset + size > payload_bytes:
                    raise InputError(f"bytes {offset}..{offset + size} of a payload of {payload_bytes} bytes")
                if size > (most := codec.max_bytes(spec)):
                    raise InputError(
                        f"{spec.elements} elements of {name_of(spec.dtype)} are {most} bytes, not {size}; "
                        f"codec {codec.name} never makes more"
                    )
                decoded += 0 if codec is RAW else spec.nbytes
                if decoded > limits.max_decoded_bytes:
                    raise LimitError(f"{decoded} bytes decoded; max_decoded_bytes is {limits.max_decoded_bytes}")
                seen[place] = spec.elements
                end = max(end, offset + size)
            records.append(record)
    return tuple(records)


def read_arrays(records: Sequence[Record], payload: memoryview) -> tuple[Array, ...]:
    """Return the arrays of records that :func:`read_records` has checked for a payload of this size.

    Raises:
        InputError: bytes that are not what their record says.
    """
    flats: dict[tuple[object, ...], Array] = {}
    arrays = []
    end = 0
    for index, record in enumerate(records):
        spec, codec, offset, size = record
        end = max(end, offset + size)
        if codec is RAW and spec.any_bits and 0 < size == spec.nbytes:
            array = np.ndarray(spec.shape, spec.dtype, payload, offset, spec.strides)
            if array.flags.aligned:
                arrays.append(array)
                continue
        place = _place(record)
        flat = flats.get(place)
        if flat is None or flat.size != spec.elements:
            try:
                flat = flats[place] = codec.decode(payload[offset : offset + size], spec)
            except InputError:
                with _naming_tensor(index):
                    raise
        arrays.append(spec.arrange(flat))
    if len(payload) > end:
        raise InputError(f"the payload has {len(payload)} bytes but its tensors end at byte {end}")
    return tuple(arrays)


View = tuple[tuple[int, ...], DType, int, tuple[int, ...]]
"""Shape, dtype, byte of the first element and strides: what ``numpy.ndarray`` takes beside the bytes."""

# Where the content of a ``bytes`` object begins, past an address that is a multiple of 16.
_BYTES_HEADER = bytes.__basicsize__ - 1


def plain_views(records: Sequence[Record], payload_start: int, payload_bytes: int) -> tuple[View, ...] | None:
    """Return how tensors lie in a message, if looking at its bytes is all that reading them takes; else None."""
    views = []
    for spec, codec, offset, size in records:
        start = payload_start + offset
        if codec is not RAW or not spec.any_bits or not 0 < size == spec.nbytes:
            return None
        if (_BYTES_HEADER + start) % spec.dtype.alignment:
            return None
        views.append((spec.shape, spec.dtype, start, spec.strides))
    if max((record.offset + record.size for record in records), default=0) != payload_bytes:
        return None
    return tuple(views)


def read_views(views: Sequence[View], data: bytes | memoryview) -> tuple[Array, ...]:
    """Return the arrays of a message."""
    arrays = []
    for shape, dtype, start, strides in views:
        arrays.append(np.ndarray(shape, dtype, data, start, strides))
    return tuple(arrays)


@contextmanager
def _naming_tensor(index: int) -> Iterator[None]:
    """Say in an error which tensor it is about."""
    try:
        yield
    except LimitError as error:
        raise LimitError(f"tensor {index}: {error}") from None
    except InputError as error:
        raise InputError(f"tensor {index}: {error}") from None


def _place(record: Record) -> tuple[object, ...]:
    """Tensors of equal places share their elements."""
    spec, codec, offset, size = record
    return offset, size, codec, spec.dtype if codec is RAW else spec


def _as_array(tensor: Any) -> Array:
    if isinstance(tensor, np.ndarray):
        return tensor
    if sys.modules.get("torch") is None:  # whoever has a tensor has imported it
        raise InputError(f"arrays of numpy can be sent, not {type(tensor).__name__}")
    return _from_torch()(tensor)


@cache
def _from_torch() -> Callable[[Any], Array]:
    from splitinfer.wire.torch_tensors import from_torch

    return from_torch


def _check_record(header: pb.TensorHeader, wire: Wire) -> Record:
    limits = wire.limits
    dtype = dtype_of_number(header.dtype)
    shape = tuple(header.shape)
    if len(shape) > limits.max_dims:
        raise LimitError(f"{len(shape)} dimensions; max_dims is {limits.max_dims}")
    if any(size < 0 for size in shape):
        raise InputError(f"shape {shape} has a negative size")
    # A zero hides the product of the other sizes from the limit, and strides multiply them all.
    size = prod(max(size, 1) for size in shape) * dtype.itemsize
    if size > limits.max_tensor_bytes:
        raise LimitError(f"shape {shape} is {size} bytes; max_tensor_bytes is {limits.max_tensor_bytes}")
    order = tuple(header.stride_order)
    if order and sorted(order) != list(range(len(shape))):
        raise InputError(f"stride_order {order} is no order of {len(shape)} dimensions")
    expanded = tuple(header.expanded_dims)
    if len(set(expanded)) != len(expanded) or any(dim >= len(shape) for dim in expanded):
        raise InputError(f"expanded_dims {expanded} are not dimensions of shape {shape}")
    spec = ArraySpec(shape, dtype, order, expanded)
    codec = wire.find(header.codec, header.codec_version)
    if not codec.takes(dtype):
        raise InputError(f"codec {codec.name} does not carry {name_of(dtype)}")
    return Record(spec, codec, header.byte_offset, header.byte_size)
