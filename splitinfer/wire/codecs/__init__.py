"""Codecs: how the elements of one tensor become bytes.

A codec has a number and a version that travel with every tensor, so that a new codec, or a changed one, is refused by
a peer that does not know it instead of being misread. To add one, write its class in a module here and add it to
``CODECS`` (``docs/wire.md`` shows how). A changed codec gets another version and stands beside the one before for as
long as peers send that.
"""

from __future__ import annotations

from collections.abc import Iterable

from splitinfer.errors import InputError
from splitinfer.wire.codecs.base import Buffer, Codec
from splitinfer.wire.codecs.float16 import Float16Codec
from splitinfer.wire.codecs.raw import RawCodec
from splitinfer.wire.dtypes import DType

__all__ = ["CODECS", "RAW", "Buffer", "Codec", "bits_per_element", "codecs_named", "find_codec"]

RAW = RawCodec()
# Of several versions of one name the first is sent to a peer that accepts it.
CODECS: tuple[Codec, ...] = (RAW, Float16Codec())


def codecs_named(names: Iterable[str]) -> tuple[Codec, ...]:
    """Return every version of the codecs of these names, in the order of ``CODECS``.

    Raises:
        InputError: there is no codec of a name.
    """
    names = set(names)
    known = {codec.name for codec in CODECS}
    if not names <= known:
        unknown = ", ".join(repr(name) for name in sorted(names - known))
        raise InputError(f"codec: there is no codec {unknown}; known: {', '.join(sorted(known))}")
    return tuple(codec for codec in CODECS if codec.name in names)


def find_codec(number: int, version: int, accepted: tuple[Codec, ...]) -> Codec:
    """Return the codec of a number and version.

    Raises:
        InputError: it is not among the accepted ones.
    """
    for codec in accepted:
        if codec.number == number and codec.version == version:
            return codec
    known = ", ".join(f"{codec.name} {codec.number} version {codec.version}" for codec in accepted)
    raise InputError(f"unknown codec {number} version {version}; accepted: {known}")


def bits_per_element(codec: Codec, dtype: DType) -> float:
    """Return how many bits an element takes on the wire by the codec's estimate, headers aside."""
    return (codec if codec.takes(dtype) else RAW).bits_per_element(dtype)
