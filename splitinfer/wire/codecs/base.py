"""What a codec is."""

from __future__ import annotations

from typing import Protocol

from splitinfer.errors import InputError
from splitinfer.wire.dtypes import Array, DType, name_of
from splitinfer.wire.layout import ArraySpec

# Bytes that are joined into the message without another copy.
Buffer = memoryview | bytes


class Codec(Protocol):
    """One way to write the elements of a tensor.

    A codec sees the elements that have bytes of their own, as an array of ``spec.stored_shape``: its axes are the
    tensor's, however they lie in memory. ``spec.flatten`` gives the elements in memory order, for codecs that look at
    one after the other.

    Attributes:
        name: for people and settings.
        number: on the wire.
        version: on the wire, raised when the bytes change their meaning.
        exact: whether every bit comes back.

    It may have ``encode_cycles_per_element`` and ``decode_cycles_per_element``, estimates of what encoding costs the
    device and decoding the edge; without, nothing.
    """

    name: str
    number: int
    version: int
    exact: bool

    def takes(self, dtype: DType) -> bool:
        """Whether it writes elements of this dtype; those of others travel raw."""

    def bits_per_element(self, dtype: DType) -> float:
        """Estimate of the bits that an element takes, for profiles and simulation."""

    def max_bytes(self, spec: ArraySpec) -> int:
        """The most bytes that an array can take. More are refused before they are decoded."""

    def encode(self, values: Array, spec: ArraySpec) -> Buffer | None:
        """Return the bytes of an array of ``spec.stored_shape``, its own memory where possible.

        None leaves the tensor raw, where these values cannot be written.
        """

    def decode(self, data: memoryview, spec: ArraySpec) -> Array:
        """Return the elements in memory order, in ``spec.dtype``; on the memory of ``data`` where possible.

        ``data`` comes from a stranger. What is allocated is bounded by ``spec``, which has been checked.

        Raises:
            InputError: the bytes are not such an array.
        """


def check_size(data: memoryview, itemsize: int, spec: ArraySpec, *, extra: int = 0) -> None:
    """Refuse bytes that are not ``itemsize`` for each element and ``extra`` besides.

    Raises:
        InputError: the sizes differ.
    """
    size = spec.elements * itemsize + extra
    if data.nbytes != size:
        raise InputError(f"{spec.elements} elements of {name_of(spec.dtype)} are {size} bytes, not {data.nbytes}")
