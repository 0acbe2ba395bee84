"""Codecs: how the elements of one tensor become bytes.

A codec has a number and a version that travel with every tensor, so that a new codec, or a changed one, is refused by
a peer that does not know it instead of being misread. Raw little-endian bytes are codec 0.
"""

from __future__ import annotations

import sys
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from splitinfer.errors import InputError

# Bytes that are joined into the message without another copy.
Buffer = memoryview | bytes
# Bytes of a received message.
Memory = NDArray[np.uint8]

# dtypes that numpy does not have, and one of the same size that it has.
_NOT_IN_NUMPY = {torch.bfloat16: torch.int16, torch.complex32: torch.int32}


class Codec(Protocol):
    """One way to write the stored elements of a tensor.

    Attributes:
        number: the codec's number on the wire.
        version: raised when the bytes change their meaning.
        name: for people.
    """

    number: int
    version: int
    name: str

    def encode(self, tensor: torch.Tensor) -> Buffer:
        """Return the bytes of a row-major CPU tensor, its own memory where possible."""
        ...

    def decode(self, data: Memory, dtype: torch.dtype, elements: int) -> torch.Tensor:
        """Return a 1-D tensor of ``elements`` elements, on the memory of ``data`` where possible.

        Raises:
            InputError: the bytes are not ``elements`` elements of this dtype.
        """
        ...


class _Lender:
    """Lends the memory of a message to numpy as writable and keeps the message alive.

    A received message is ``bytes``, which torch warns about, since a tensor can be written to. Nobody else holds the
    message, so writing to such a tensor harms nobody.
    """

    def __init__(self, data: memoryview) -> None:
        self._view = np.frombuffer(data, np.uint8)
        self.__array_interface__ = self._view.__array_interface__
        self.__array_interface__["data"] = (self.__array_interface__["data"][0], False)


def lend(data: memoryview) -> Memory:
    """Return an array of the bytes of a received message, on its memory."""
    return np.asarray(_Lender(data)) if len(data) else np.empty(0, np.uint8)


class RawCodec:
    """Little-endian elements, as they lie in memory."""

    number = 0
    version = 1
    name = "raw"

    def encode(self, tensor: torch.Tensor) -> Buffer:
        if tensor.numel() == 0:
            return b""
        if tensor.dtype in _NOT_IN_NUMPY:
            tensor = tensor.view(_NOT_IN_NUMPY[tensor.dtype])
        # Not view(-1): one element that was expanded keeps its stride of 0, and numpy keeps it out of a buffer.
        return tensor.numpy().data.cast("B") if tensor.dim() else tensor.view(1).numpy().data.cast("B")

    def decode(self, data: Memory, dtype: torch.dtype, elements: int) -> torch.Tensor:
        if data.nbytes != elements * dtype.itemsize:
            name = str(dtype).removeprefix("torch.")
            raise InputError(f"{elements} elements of {name} are {elements * dtype.itemsize} bytes, not {data.nbytes}")
        if elements == 0:
            return torch.empty(0, dtype=dtype)
        flat = torch.frombuffer(data, dtype=dtype)
        # From a peer that does not align; kernels may count on aligned elements.
        return flat.clone() if flat.data_ptr() % dtype.itemsize else flat


def _registry(*codecs: Codec) -> dict[int, Codec]:
    return {codec.number: codec for codec in codecs}


RAW = RawCodec()
CODECS = _registry(RAW)


def find_codec(number: int, version: int) -> Codec:
    """Return the codec of a number and version.

    Raises:
        InputError: this end does not know it.
    """
    codec = CODECS.get(number)
    if codec is None or codec.version != version:
        known = ", ".join(f"{c.name} {c.number} version {c.version}" for c in CODECS.values())
        raise InputError(f"unknown codec {number} version {version}; known: {known}")
    return codec


if sys.byteorder != "little":  # pragma: no cover - no such host is supported by the wheels of torch
    raise ImportError("splitinfer sends tensors as they lie in memory and needs a little-endian host")
