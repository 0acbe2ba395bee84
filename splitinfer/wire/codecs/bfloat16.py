"""bfloat16 for wider floats: half the bytes of float32, its whole range, eight bits of each number."""

from __future__ import annotations

import numpy as np

from splitinfer.wire.codecs.base import Buffer, check_size
from splitinfer.wire.dtypes import Array, DType
from splitinfer.wire.layout import ArraySpec

_WIDER = (np.dtype(np.float32), np.dtype(np.float64))


class BFloat16Codec:
    """float32 and float64 as bfloat16, rounded to nearest, ties to even. NaN and infinities stay what they are."""

    name = "bfloat16"
    number = 2
    version = 1
    exact = False
    encode_cycles_per_element = 2.0
    decode_cycles_per_element = 1.0

    def takes(self, dtype: DType) -> bool:
        return dtype in _WIDER

    def bits_per_element(self, dtype: DType) -> float:
        return 16.0

    def max_bytes(self, spec: ArraySpec) -> int:
        return 2 * spec.elements

    def encode(self, values: Array, spec: ArraySpec) -> Buffer | None:
        if not spec.elements:
            return b""
        with np.errstate(over="ignore", invalid="ignore"):
            wide = np.ascontiguousarray(spec.flatten(values), np.float32)
        whole = wide.view(np.uint32)
        rounded = ((whole + (0x7FFF + ((whole >> 16) & 1))) >> 16).astype(np.uint16)
        nan = np.isnan(wide)
        if nan.any():  # rounding could turn one into an infinity
            rounded[nan] = (whole[nan] >> 16).astype(np.uint16) | 0x0040
        return rounded.data.cast("B")

    def decode(self, data: memoryview, spec: ArraySpec) -> Array:
        check_size(data, 2, spec)
        wide = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
        return wide.view(np.float32).astype(spec.dtype, copy=False)
