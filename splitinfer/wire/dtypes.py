"""torch dtypes and their numbers on the wire."""

from __future__ import annotations

import torch

from splitinfer.errors import InputError
from splitinfer.wire import splitinfer_pb2 as pb

_NUMBER_OF: dict[torch.dtype, int] = {
    torch.bool: pb.DTYPE_BOOL,
    torch.uint8: pb.DTYPE_UINT8,
    torch.int8: pb.DTYPE_INT8,
    torch.uint16: pb.DTYPE_UINT16,
    torch.int16: pb.DTYPE_INT16,
    torch.uint32: pb.DTYPE_UINT32,
    torch.int32: pb.DTYPE_INT32,
    torch.uint64: pb.DTYPE_UINT64,
    torch.int64: pb.DTYPE_INT64,
    torch.float16: pb.DTYPE_FLOAT16,
    torch.bfloat16: pb.DTYPE_BFLOAT16,
    torch.float32: pb.DTYPE_FLOAT32,
    torch.float64: pb.DTYPE_FLOAT64,
    torch.complex32: pb.DTYPE_COMPLEX32,
    torch.complex64: pb.DTYPE_COMPLEX64,
    torch.complex128: pb.DTYPE_COMPLEX128,
}
_DTYPE_OF = {number: dtype for dtype, number in _NUMBER_OF.items()}

WIRE_DTYPES = tuple(_NUMBER_OF)


def dtype_number(dtype: torch.dtype) -> int:
    """Return the wire's number of a dtype.

    Raises:
        InputError: tensors of this dtype have no form on the wire (quantized ones, say).
    """
    try:
        return _NUMBER_OF[dtype]
    except KeyError:
        raise InputError(f"tensors of {dtype} cannot be sent") from None


def dtype_of_number(number: int) -> torch.dtype:
    """Return the dtype of a wire number.

    Raises:
        InputError: the number means nothing here.
    """
    try:
        return _DTYPE_OF[number]
    except KeyError:
        raise InputError(f"unknown dtype number {number}") from None
