"""Kinds of elements, and their numbers on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from splitinfer.errors import InputError


@dataclass(frozen=True, eq=False)
class DType:
    """One kind of element.

    Attributes:
        name: what torch and numpy call it.
        number: its number on the wire.
        storage: the numpy dtype that holds its bits; another one of the same size where numpy has no such dtype.
    """

    name: str
    number: int
    storage: np.dtype[Any]

    @property
    def itemsize(self) -> int:
        return self.storage.itemsize

    @property
    def is_in_numpy(self) -> bool:
        return self.storage.name == self.name

    def __str__(self) -> str:
        return self.name


_NUMBERS = {
    "bool": 1,
    "uint8": 2,
    "int8": 3,
    "uint16": 4,
    "int16": 5,
    "uint32": 6,
    "int32": 7,
    "uint64": 8,
    "int64": 9,
    "float16": 10,
    "bfloat16": 11,
    "float32": 12,
    "float64": 13,
    "complex32": 14,
    "complex64": 15,
    "complex128": 16,
}
_STORAGE = {"bfloat16": "uint16", "complex32": "uint32"}

DTYPES = {name: DType(name, number, np.dtype(_STORAGE.get(name, name))) for name, number in _NUMBERS.items()}
_BY_NUMBER = {dtype.number: dtype for dtype in DTYPES.values()}
_BY_NUMPY = {dtype.storage: dtype for dtype in DTYPES.values() if dtype.is_in_numpy}


def dtype_of_number(number: int) -> DType:
    """Return the dtype of a wire number.

    Raises:
        InputError: the number means nothing here.
    """
    try:
        return _BY_NUMBER[number]
    except KeyError:
        raise InputError(f"unknown dtype number {number}") from None


def dtype_of_numpy(dtype: np.dtype[Any]) -> DType:
    """Return the dtype of a numpy array's elements.

    Raises:
        InputError: they have no form on the wire (objects, strings, foreign byte order).
    """
    try:
        return _BY_NUMPY[dtype]
    except KeyError:
        raise InputError(f"arrays of {dtype} cannot be sent") from None
