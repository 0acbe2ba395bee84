"""Tensors to typed headers and payload buffers, and back.

The receiver trusts nothing: every number of a header is checked before memory is touched, in Python's own integers,
which do not overflow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod

import torch

from splitinfer.errors import InputError
from splitinfer.wire import splitinfer_pb2 as pb
from splitinfer.wire.codecs import RAW, Buffer, Codec, find_codec, lend
from splitinfer.wire.dtypes import dtype_number, dtype_of_number
from splitinfer.wire.layout import Layout, dense, restore
from splitinfer.wire.limits import LimitError, WireLimits

# Every record starts at a multiple of this within the payload: one cache line, and what torch's own allocator gives.
RECORD_ALIGNMENT = 64
_ZEROS = bytes(RECORD_ALIGNMENT)
# Checked headers are kept up to this size, so that a stranger cannot fill the memory with them.
_LARGEST_KEPT_HEADER = 256


@dataclass
class Payload:
    """Buffers that make up a payload, with the headers that point into it."""

    headers: list[pb.TensorHeader] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    size: int = 0


def pack(tensors: Sequence[torch.Tensor], codec: Codec = RAW) -> Payload:
    """Describe tensors and collect their memory, without copying dense ones.

    Two tensors that show the same memory in the same way in memory order are stored once.

    Raises:
        InputError: a tensor of a dtype or layout that has no form on the wire.
    """
    payload = Payload()
    seen: dict[tuple[int, int, torch.dtype], tuple[int, int]] = {}
    alive: list[torch.Tensor] = []  # or the address of a freed copy could come back as another tensor's
    for tensor in tensors:
        number = dtype_number(tensor.dtype)
        layout, stored = dense(_on_this_machine(tensor))
        if stored.is_conj() or stored.is_neg():  # flags on a view; the values in memory are others
            stored = stored.resolve_conj().resolve_neg()
        alive.append(stored)
        key = (stored.data_ptr(), stored.numel(), stored.dtype)
        place = seen.get(key) if key[1] else (0, 0)
        if place is None:
            buffer = codec.encode(stored)
            gap = -payload.size % RECORD_ALIGNMENT
            if gap:
                payload.buffers.append(_ZEROS[:gap])
            place = (payload.size + gap, len(buffer))
            payload.buffers.append(buffer)
            payload.size = sum(place)
            seen[key] = place
        payload.headers.append(
            pb.TensorHeader(
                dtype=number,  # type: ignore[arg-type]
                shape=layout.shape,
                stride_order=layout.stride_order,
                expanded_dims=layout.expanded_dims,
                codec=codec.number,
                codec_version=codec.version,
                byte_offset=place[0],
                byte_size=place[1],
            )
        )
    return payload


def unpack(headers: Iterable[pb.TensorHeader], payload: memoryview, limits: WireLimits) -> tuple[torch.Tensor, ...]:
    """Return the tensors that headers describe, on the payload's own memory where the codec allows.

    The tensors keep the payload alive.

    Raises:
        InputError: headers and payload do not fit together; the message names the tensor and the field.
        LimitError: a tensor is over a limit.
    """
    headers = list(headers)
    if len(headers) > limits.max_tensors:
        raise LimitError(f"{len(headers)} tensors in one message; max_tensors is {limits.max_tensors}")
    memory = lend(payload)
    flats: dict[tuple[int, int, torch.dtype, int], torch.Tensor] = {}
    tensors = []
    end = 0
    for index, header in enumerate(headers):
        try:
            record = _read_record(header, limits)
            layout, offset, stop = record.layout, record.offset, record.offset + record.size
            place = (offset, record.size, record.dtype, record.codec.number)
            flat = flats.get(place)
            if flat is None or flat.numel() != record.elements:
                if record.size and offset < end:
                    raise InputError(f"byte_offset {offset} lies inside another tensor's bytes")
                if stop > len(memory):
                    raise InputError(f"bytes {offset}..{stop} of a payload of {len(memory)} bytes")
                flat = record.codec.decode(memory[offset:stop], record.dtype, record.elements)
                flats[place] = flat
                end = max(end, stop)
            tensors.append(restore(layout, flat))
        except LimitError as error:
            raise LimitError(f"tensor {index}: {error}") from None
        except InputError as error:
            raise InputError(f"tensor {index}: {error}") from None
    if len(memory) > end:
        raise InputError(f"the payload has {len(memory)} bytes but its tensors end at byte {end}")
    return tuple(tensors)


@dataclass(frozen=True)
class _Record:
    """What a header says, checked in itself but not yet against the payload."""

    dtype: torch.dtype
    layout: Layout
    elements: int
    codec: Codec
    offset: int
    size: int


def _on_this_machine(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.layout != torch.strided:
        raise InputError(f"only dense tensors can be sent, not {tensor.layout}")
    if tensor.requires_grad or tensor.device.type != "cpu":
        tensor = tensor.detach().cpu()
    return tensor


def _read_record(header: pb.TensorHeader, limits: WireLimits) -> _Record:
    """Check a header. Models send the same ones again and again, and a look-up is quicker than the checks."""
    serialized = header.SerializeToString()
    if len(serialized) > _LARGEST_KEPT_HEADER:
        return _check_record(header, limits)
    return _kept_record(serialized, limits)


@lru_cache(maxsize=4096)
def _kept_record(serialized: bytes, limits: WireLimits) -> _Record:
    return _check_record(pb.TensorHeader.FromString(serialized), limits)


def _check_record(header: pb.TensorHeader, limits: WireLimits) -> _Record:
    dtype = dtype_of_number(header.dtype)
    shape = tuple(header.shape)
    if len(shape) > limits.max_dims:
        raise LimitError(f"{len(shape)} dimensions; max_dims is {limits.max_dims}")
    if any(size < 0 for size in shape):
        raise InputError(f"shape {shape} has a negative size")
    # A zero hides the product of the other sizes from the limit, and torch multiplies them all for the strides.
    size = prod(max(size, 1) for size in shape) * dtype.itemsize
    if size > limits.max_tensor_bytes:
        raise LimitError(f"shape {shape} is {size} bytes; max_tensor_bytes is {limits.max_tensor_bytes}")
    order = tuple(header.stride_order)
    if order and sorted(order) != list(range(len(shape))):
        raise InputError(f"stride_order {order} is no order of {len(shape)} dimensions")
    expanded = tuple(header.expanded_dims)
    if len(set(expanded)) != len(expanded) or any(dim >= len(shape) for dim in expanded):
        raise InputError(f"expanded_dims {expanded} are not dimensions of shape {shape}")
    layout = Layout(shape, order, expanded)
    codec = find_codec(header.codec, header.codec_version)
    return _Record(dtype, layout, layout.stored_elements, codec, header.byte_offset, header.byte_size)
