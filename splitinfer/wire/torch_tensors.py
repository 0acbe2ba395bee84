"""Tensors of torch to arrays of numpy and back, on the same memory. The one module of the wire that needs torch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch

from splitinfer.errors import InputError
from splitinfer.wire.codecs import Wire
from splitinfer.wire.dtypes import BFLOAT16, COMPLEX32, DTYPES, Array, DType
from splitinfer.wire.tensors import pack, unpack

_NUMPY_OF: dict[torch.dtype, DType] = {getattr(torch, name): dtype for name, dtype in DTYPES.items()}
# What both torch and numpy have, for the bits of what only torch has.
_BITS = {torch.bfloat16: torch.uint16, torch.complex32: torch.uint32}
_TORCH_OF = {BFLOAT16: (np.uint16, torch.bfloat16), COMPLEX32: (np.uint32, torch.complex32)}


def numpy_dtype(dtype: torch.dtype) -> DType:
    """Return the wire's dtype.

    Raises:
        InputError: tensors of this dtype have no form on the wire (quantized ones, say).
    """
    try:
        return _NUMPY_OF[dtype]
    except KeyError:
        raise InputError(f"tensors of {dtype} cannot be sent") from None


def from_torch(tensor: torch.Tensor) -> Array:
    """Return a tensor as an array, on the same memory if that is the CPU's.

    Raises:
        InputError: no tensor, or a dtype or layout that has no form on the wire (quantized, sparse).
    """
    if not isinstance(tensor, torch.Tensor):
        raise InputError(f"tensors of torch and arrays of numpy can be sent, not {type(tensor).__name__}")
    dtype = numpy_dtype(tensor.dtype)
    if tensor.layout != torch.strided:
        raise InputError(f"only dense tensors can be sent, not {tensor.layout}")
    if tensor.requires_grad or not tensor.is_cpu:
        tensor = tensor.detach().cpu()
    if tensor.is_conj() or tensor.is_neg():  # flags on a view; the values in memory are others
        shape = tensor.shape
        for dim, stride in enumerate(tensor.stride()):  # expanded dimensions stay so
            tensor = tensor.narrow(dim, 0, min(1, shape[dim])) if stride == 0 else tensor
        tensor = tensor.resolve_conj().resolve_neg().expand(shape)
    bits = _BITS.get(tensor.dtype)
    return tensor.numpy() if bits is None else tensor.view(bits).numpy().view(dtype)


def to_torch(array: Array) -> torch.Tensor:
    """Return a tensor on the array's memory.

    That of a received message is ``bytes``. A tensor on it can be written to all the same, which harms nobody, since
    nobody else holds the message. Arrays of numpy stay read-only.
    """
    if not array.dtype.names:
        return torch.from_numpy(array)
    bits, dtype = _TORCH_OF[array.dtype]
    return torch.from_numpy(array.view(bits)).view(dtype)


def as_received(tensors: Sequence[torch.Tensor], wire: Wire) -> tuple[torch.Tensor, ...]:
    """Return what the other end makes of tensors that this one sends: what a codec that is not exact leaves of them."""
    payload = pack(tensors, wire.codec)
    return tuple(map(to_torch, unpack(payload.headers, memoryview(b"".join(payload.buffers)), wire)))


with warnings.catch_warnings():
    # torch warns at the first read-only array of a process that its tensor can be written to.
    warnings.simplefilter("ignore")
    torch.from_numpy(np.frombuffer(bytes(1), np.uint8))
