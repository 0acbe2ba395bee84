"""Tensors as they arrive: packed, joined to one message's bytes, unpacked."""

from __future__ import annotations

import itertools
import math

import torch
from hypothesis import strategies as st

from splitinfer.wire import Wire, unpack
from splitinfer.wire.codecs import RAW, Codec
from splitinfer.wire.dtypes import DTYPES
from splitinfer.wire.tensors import pack
from splitinfer.wire.torch_tensors import to_torch

WIRE = Wire()


def through_the_wire(*tensors: torch.Tensor, codec: Codec = RAW) -> tuple[torch.Tensor, ...]:
    payload = pack(tensors, codec)
    data = b"".join(payload.buffers)
    assert len(data) == payload.size
    return tuple(map(to_torch, unpack(payload.headers, memoryview(data), WIRE)))


def bits(tensor: torch.Tensor) -> bytes:
    # A copy, not contiguous(): a tensor of one element counts as contiguous whatever its strides are.
    values = tensor.resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
    return bytes(values.view(-1).view(torch.uint8).tolist())


@st.composite
def layouts(draw: st.DrawFn) -> torch.Tensor:
    """Tensors of every dtype in every kind of layout: permuted, expanded, sliced, empty, scalar."""
    dtype = getattr(torch, draw(st.sampled_from(list(DTYPES))))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    random = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    raw = torch.randint(0, 256, (math.prod(shape) * dtype.itemsize,), dtype=torch.uint8, generator=random)
    if dtype is torch.bool:
        raw = raw % 2
    tensor = raw.view(dtype).view(shape) if raw.numel() else torch.empty(shape, dtype=dtype)
    tensor = tensor.permute(draw(st.sampled_from(list(itertools.permutations(range(len(shape)))))))
    for dim in range(tensor.dim()):
        if tensor.shape[dim] == 1 and draw(st.booleans()):
            tensor = tensor.expand([3 if d == dim else -1 for d in range(tensor.dim())])
        elif tensor.shape[dim] > 1 and draw(st.integers(0, 3)) == 0:
            tensor = tensor.narrow(dim, 0, tensor.shape[dim] - 1)
    if dtype.is_complex and draw(st.booleans()):
        tensor = tensor.conj()
    return tensor
