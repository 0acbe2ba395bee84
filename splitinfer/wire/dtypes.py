"""Kinds of elements: dtypes of numpy, and their numbers on the wire.

The two that numpy does not have are a field of that name over the bits: ``array["bfloat16"]`` is of uint16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitinfer.errors import InputError

Array = NDArray[Any]
DType = np.dtype[Any]

BFLOAT16 = np.dtype([("bfloat16", np.uint16)], align=True)
COMPLEX32 = np.dtype([("complex32", np.uint32)], align=True)

# Numbers on the wire count from 1.
_IN_ORDER: tuple[Any, ...] = (
    *("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16"),
    *(BFLOAT16, "float32", "float64", COMPLEX32, "complex64", "complex128"),
)
_BY_NUMBER: dict[int, DType] = {number: np.dtype(each) for number, each in enumerate(_IN_ORDER, start=1)}
_NUMBER_OF = {dtype: number for number, dtype in _BY_NUMBER.items()}


def name_of(dtype: DType) -> str:
    """Return what torch and numpy call a dtype."""
    return dtype.names[0] if dtype.names else dtype.name


DTYPES = {name_of(dtype): dtype for dtype in _NUMBER_OF}


def dtype_number(dtype: DType) -> int:
    """Return the wire's number of a dtype.

    Raises:
        InputError: arrays of this dtype have no form on the wire (objects, strings, foreign byte order).
    """
    try:
        return _NUMBER_OF[dtype]
    except KeyError:
        raise InputError(f"arrays of {dtype} cannot be sent") from None


def dtype_of_number(number: int) -> DType:
    """Return the dtype of a wire number.

    Raises:
        InputError: the number means nothing here.
    """
    try:
        return _BY_NUMBER[number]
    except KeyError:
        raise InputError(f"unknown dtype number {number}") from None


def widened(array: Array) -> Array:
    """Return bfloat16 as float32 and complex32 as complex64, both exactly; any other array as it is."""
    if array.dtype == BFLOAT16:
        return (array["bfloat16"].astype(np.uint32) << 16).view(np.float32)
    if array.dtype == COMPLEX32:
        parts = array["complex32"][..., None].copy().view(np.float16)
        return parts.astype(np.float32).view(np.complex64)[..., 0]
    return array
