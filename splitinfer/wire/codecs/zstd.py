"""Another codec's bytes, compressed by Zstandard. Decompression stops at the size that the other codec declares."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from splitinfer.errors import InputError
from splitinfer.wire.codecs.base import Buffer, Codec
from splitinfer.wire.dtypes import Array, DType
from splitinfer.wire.layout import ArraySpec

LEVEL = 1
"""Of compression: higher ones take several times as long for some per cent."""

WINDOW_LOG_MAX = 23
"""Most memory that a frame may ask of the decoder, as a power of two: 8 MiB."""

NUMBER_BASE = 32
"""The number of a compressed codec is this plus the other's."""


class ZstdCodec:
    """``inner`` with its bytes compressed.

    Args:
        inner: writes the elements.
    """

    version = 1

    def __init__(self, inner: Codec) -> None:
        self.name = f"{inner.name}+zstd"
        self.number = NUMBER_BASE + inner.number
        self.exact = inner.exact
        self.inner = inner
        compressed_bytes = inner.bits_per_element(np.dtype(np.float32)) / 8
        self.encode_cycles_per_element = getattr(inner, "encode_cycles_per_element", 0.0) + 6.0 * compressed_bytes
        self.decode_cycles_per_element = getattr(inner, "decode_cycles_per_element", 0.0) + 3.0 * compressed_bytes

    def takes(self, dtype: DType) -> bool:
        return self.inner.takes(dtype)

    def bits_per_element(self, dtype: DType) -> float:
        """The other codec's: what compression saves depends on the values, and a profile measures it."""
        return self.inner.bits_per_element(dtype)

    def max_bytes(self, spec: ArraySpec) -> int:
        size = self.inner.max_bytes(spec)
        return size + size // 128 + 256

    def encode(self, values: Array, spec: ArraySpec) -> Buffer | None:
        plain = self.inner.encode(values, spec)
        return None if plain is None else self.compressed(plain)

    def compressed(self, plain: Buffer) -> bytes:
        """Return the bytes of what the other codec wrote."""
        data: bytes = _zstd().compress(plain, level=LEVEL)
        return data

    def decode(self, data: memoryview, spec: ArraySpec) -> Array:
        zstd = _zstd()
        limit = self.inner.max_bytes(spec)
        options = {zstd.DecompressionParameter.window_log_max: WINDOW_LOG_MAX}
        decoder = zstd.ZstdDecompressor(options=options)
        try:
            plain = decoder.decompress(bytes(data), max_length=limit + 1)
        except (zstd.ZstdError, EOFError, ValueError) as error:
            raise InputError(f"{self.name}: {error}") from None
        if len(plain) > limit or not decoder.eof or decoder.unused_data:
            raise InputError(f"{self.name}: the bytes are no frame of at most {limit} bytes")
        return self.inner.decode(memoryview(plain), spec)


def _zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd

        return zstd
    from backports import zstd as backported

    return backported
