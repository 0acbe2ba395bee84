"""Codecs: how the elements of one tensor become bytes.

A codec has a number and a version that travel with every tensor, so that a new codec, or a changed one, is refused by
a peer that does not know it instead of being misread. Raw little-endian bytes are codec 0.
"""

from __future__ import annotations

import sys
from typing import Protocol

import numpy as np
import torch

from splitinfer.errors import InputError

# A buffer of bytes that is joined into the message without another copy.
Buffer = memoryview | bytes


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

    def encode(self, flat: torch.Tensor) -> Buffer:
        """Return the bytes of a 1-D CPU tensor, its own memory where possible."""
        ...

    def decode(self, data: memoryview, dtype: torch.dtype, elements: int) -> torch.Tensor:
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
        view = np.frombuffer(data, np.uint8)
        self._view = view
        self.__array_interface__ = {
            "data": (view.__array_interface__["data"][0], False),
            "shape": view.shape,
            "typestr": "|u1",
            "version": 3,
        }


class RawCodec:
    """Little-endian elements, as they lie in memory."""

    number = 0
    version = 1
    name = "raw"

    def encode(self, flat: torch.Tensor) -> Buffer:
        if flat.numel() == 0:
            return b""
        return flat.view(torch.uint8).numpy().data

    def decode(self, data: memoryview, dtype: torch.dtype, elements: int) -> torch.Tensor:
        if len(data) != elements * dtype.itemsize:
            name = str(dtype).removeprefix("torch.")
            raise InputError(f"{elements} elements of {name} are {elements * dtype.itemsize} bytes, not {len(data)}")
        if elements == 0:
            return torch.empty(0, dtype=dtype)
        memory = torch.from_numpy(np.asarray(_Lender(data)))
        if memory.data_ptr() % dtype.itemsize:
            memory = memory.clone()  # from a peer that does not align; kernels may count on aligned elements
        return memory.view(dtype)


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
