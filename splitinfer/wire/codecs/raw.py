"""Elements as they lie in memory."""

from __future__ import annotations

import sys

import numpy as np

from splitinfer.errors import InputError
from splitinfer.wire.codecs.base import Buffer, check_size
from splitinfer.wire.dtypes import Array, DType
from splitinfer.wire.layout import ArraySpec

if sys.byteorder != "little":  # pragma: no cover - no such host is supported by the wheels of torch
    raise ImportError("splitinfer sends tensors as they lie in memory and needs a little-endian host")


class RawCodec:
    """Little-endian elements in memory order. Nothing is copied on either side."""

    name = "raw"
    number = 0
    version = 1
    exact = True

    def takes(self, dtype: DType) -> bool:
        return True

    def bits_per_element(self, dtype: DType) -> float:
        return 8.0 * dtype.itemsize

    def max_bytes(self, spec: ArraySpec) -> int:
        return spec.nbytes

    def encode(self, values: Array, spec: ArraySpec) -> Buffer:
        return spec.flatten(values).view(np.uint8).data if spec.elements else b""

    def decode(self, data: memoryview, spec: ArraySpec) -> Array:
        check_size(data, spec.dtype.itemsize, spec)
        flat = np.frombuffer(data, spec.dtype)
        if spec.dtype == np.bool_ and flat.view(np.uint8).max(initial=0) > 1:
            raise InputError("a byte of a bool is neither 0 nor 1")
        # From a peer that does not align; kernels may count on aligned elements.
        return flat if flat.flags.aligned else flat.copy()
