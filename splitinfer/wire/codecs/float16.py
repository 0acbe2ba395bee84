"""IEEE half precision for wider floats: half the bytes, eleven bits of each number."""

from __future__ import annotations

import numpy as np

from splitinfer.wire.codecs.base import Buffer, check_size
from splitinfer.wire.dtypes import Array, DType
from splitinfer.wire.layout import ArraySpec

_WIDER = (np.dtype(np.float32), np.dtype(np.float64))


class Float16Codec:
    """float32 and float64 as float16, rounded to nearest. Tensors with a number past 65,504 stay raw."""

    name = "float16"
    number = 1
    version = 1
    exact = False
    encode_cycles_per_element = 12.0
    decode_cycles_per_element = 9.0

    def takes(self, dtype: DType) -> bool:
        return dtype in _WIDER

    def bits_per_element(self, dtype: DType) -> float:
        return 16.0

    def max_bytes(self, spec: ArraySpec) -> int:
        return 2 * spec.elements

    def encode(self, values: Array, spec: ArraySpec) -> Buffer | None:
        try:
            with np.errstate(over="raise", under="ignore", invalid="ignore"):
                return spec.flatten(values).astype(np.float16).data.cast("B") if spec.elements else b""
        except FloatingPointError:
            return None

    def decode(self, data: memoryview, spec: ArraySpec) -> Array:
        check_size(data, 2, spec)
        return np.frombuffer(data, np.float16).astype(spec.dtype)
