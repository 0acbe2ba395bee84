"""Tensors of torch to arrays of the wire and back, on the same memory. The one module of the wire that needs torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from splitinfer.errors import InputError
from splitinfer.wire.arrays import WireArray
from splitinfer.wire.dtypes import DTYPES, DType
from splitinfer.wire.tensors import pack, unpack
from splitinfer.wire.wire import Wire

_WIRE_OF: dict[torch.dtype, DType] = {getattr(torch, name): dtype for name, dtype in DTYPES.items()}
_TORCH_OF = {dtype: of_torch for of_torch, dtype in _WIRE_OF.items()}
# What stands in for dtypes that numpy does not have.
_STORAGE = {
    of_torch: getattr(torch, dtype.storage.name) for of_torch, dtype in _WIRE_OF.items() if not dtype.is_in_numpy
}


def dtype_of_torch(dtype: torch.dtype) -> DType:
    """Return the wire's dtype.

    Raises:
        InputError: tensors of this dtype have no form on the wire (quantized ones, say).
    """
    try:
        return _WIRE_OF[dtype]
    except KeyError:
        raise InputError(f"tensors of {dtype} cannot be sent") from None


def from_torch(tensor: torch.Tensor) -> WireArray:
    """Return a tensor as an array of the wire; it shares the memory of a tensor on this machine's CPU.

    Raises:
        InputError: a dtype or layout that has no form on the wire (quantized, sparse).
    """
    dtype = dtype_of_torch(tensor.dtype)
    if tensor.layout != torch.strided:
        raise InputError(f"only dense tensors can be sent, not {tensor.layout}")
    if tensor.requires_grad or not tensor.is_cpu:
        tensor = tensor.detach().cpu()
    if tensor.is_conj() or tensor.is_neg():
        tensor = _resolved(tensor)
    storage = _STORAGE.get(tensor.dtype)
    return WireArray((tensor if storage is None else tensor.view(storage)).numpy(), dtype)


def to_torch(array: WireArray) -> torch.Tensor:
    """Return a tensor on the array's memory."""
    values = array.values
    if not values.flags.writeable:
        values = np.asarray(_Lender(values))
    tensor = torch.from_numpy(values)
    dtype = _TORCH_OF[array.dtype]
    return tensor if tensor.dtype == dtype else tensor.view(dtype)


def as_received(tensors: Sequence[torch.Tensor], wire: Wire) -> tuple[torch.Tensor, ...]:
    """Return what the other end makes of tensors that this one sends: what a codec that is not exact leaves of them."""
    payload = pack(tensors, wire.codec)
    return tuple(map(to_torch, unpack(payload.headers, memoryview(b"".join(payload.buffers)), wire)))


def _resolved(tensor: torch.Tensor) -> torch.Tensor:
    """Write out what are only flags on a view; the values in memory are others. Expanded dimensions stay so."""
    stored = tensor
    for dim, stride in enumerate(tensor.stride()):
        stored = stored.narrow(dim, 0, min(1, stored.shape[dim])) if stride == 0 else stored
    return stored.resolve_conj().resolve_neg().expand(tensor.shape)


class _Lender:
    """Lends the memory of a received message as writable and keeps it alive.

    The message is ``bytes``, which torch warns about, since a tensor can be written to. Nobody else holds the message,
    so writing to such a tensor harms nobody. Arrays of numpy stay read-only.
    """

    def __init__(self, values: np.ndarray) -> None:
        self._values = values
        interface = values.__array_interface__
        # Strides by name: numpy leaves them out, and makes up others for dimensions of size 1, where they may be.
        self.__array_interface__ = interface | {"data": (interface["data"][0], False), "strides": values.strides}
