"""Whole numbers of 8, 4 or 2 bits for floats: ``x ~ low + step q``, with clipped ranges per tensor or channel.

The range is that of the tensor at hand, clipped where that makes the mean squared error smaller: with few levels, a
coarse grid over rare large values costs more than cutting them off. One range per channel (dimension 1) is written
where the error that it saves is worth more bits than its numbers take: halving the error's root is worth one bit an
element.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from splitinfer.errors import InputError
from splitinfer.wire.codecs.base import Buffer
from splitinfer.wire.dtypes import Array, DType
from splitinfer.wire.layout import ArraySpec

_WIDER = (np.dtype(np.float32), np.dtype(np.float64))
_PER_TENSOR, _PER_CHANNEL = 0, 1
_RANGE = struct.Struct("<ff")
_SAMPLE = 16_384
"""Elements that the choice of the range looks at."""

_CLIPS = {8: (1.0,), 4: (1.0, 0.85, 0.7, 0.55, 0.4), 2: (1.0, 0.7, 0.5, 0.35, 0.25, 0.18)}
"""Shares of the range that are tried, by bits."""

_LEAST_ERROR = 1e-30


class AffineCodec:
    """float32 and float64 as whole numbers. Tensors with infinities or NaN stay raw.

    Args:
        bits: of an element: 8, 4 or 2.
        number: on the wire.
    """

    version = 1
    exact = False

    def __init__(self, bits: int, number: int) -> None:
        self.name = f"int{bits}"
        self.number = number
        self._bits = bits
        self._levels = 2**bits - 1
        self.encode_cycles_per_element = 7.0 if bits == 8 else 16.0  # fewer bits are packed, and their range searched
        self.decode_cycles_per_element = 2.0 if bits == 8 else 4.0

    def takes(self, dtype: DType) -> bool:
        return dtype in _WIDER

    def bits_per_element(self, dtype: DType) -> float:
        return float(self._bits)

    def max_bytes(self, spec: ArraySpec) -> int:
        return 1 + _RANGE.size * _channels(spec) + -(-spec.elements * self._bits // 8)

    def encode(self, values: Array, spec: ArraySpec) -> Buffer | None:
        if not spec.elements:
            return bytes([_PER_TENSOR]) + _RANGE.pack(0.0, 0.0)
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)) or max(abs(low), abs(high)) > 3e38:
            return None
        ranges = self._ranges(np.asarray(values, np.float32), spec, low, high)
        low_, step = (part.astype(np.float32) for part in ranges)
        per_channel = len(low_) > 1
        shape = (-1, *(1 for _ in spec.stored_shape[2:])) if per_channel else ()
        scaled = (np.asarray(values, np.float32) - low_.reshape(shape)) / step.reshape(shape)
        whole = np.clip(np.rint(scaled), 0, self._levels).astype(np.uint8)
        head = bytes([_PER_CHANNEL if per_channel else _PER_TENSOR])
        return head + np.stack([low_, step], axis=1).astype("<f4").tobytes() + self._packed(spec.flatten(whole))

    def decode(self, data: memoryview, spec: ArraySpec) -> Array:
        payload = -(-spec.elements * self._bits // 8)
        kind = data[0] if data.nbytes else -1
        groups = {_PER_TENSOR: 1, _PER_CHANNEL: _channels(spec)}.get(kind, 0)
        if not groups or data.nbytes != 1 + _RANGE.size * groups + payload:
            raise InputError(f"{data.nbytes} bytes are no {spec.elements} elements of {self.name}")
        table = np.frombuffer(data[1 : 1 + _RANGE.size * groups], "<f4").reshape(groups, 2)
        if not np.isfinite(table).all():
            raise InputError(f"{self.name}: a range is not finite")
        whole = self._unpacked(np.frombuffer(data[1 + _RANGE.size * groups :], np.uint8), spec.elements)
        low, step = table[:, 0], table[:, 1]
        with np.errstate(over="ignore"):
            if groups == 1:
                return np.asarray(whole * step[0] + low[0]).astype(spec.dtype, copy=False)
            order = spec.stride_order or tuple(range(len(spec.shape)))
            channel = order.index(1)
            sizes = [spec.stored_shape[dim] for dim in order]
            shape = [sizes[channel] if place == channel else 1 for place in range(len(order))]
            flat = whole.reshape(sizes) * step.reshape(shape) + low.reshape(shape)
        return np.asarray(flat).reshape(-1).astype(spec.dtype, copy=False)

    def _ranges(
        self, values: NDArray[np.float32], spec: ArraySpec, low: float, high: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest values and steps: one of each, or one per channel."""
        flat = values.reshape(-1)
        sample = flat[:: max(1, flat.size // _SAMPLE)].astype(np.float64)
        one, one_error = self._best_clip(sample[None], np.array([low]), np.array([high]))
        channels = _channels(spec)
        if channels == 1 or spec.elements < 64 * channels:
            return one
        rows = np.moveaxis(values, 1, 0).reshape(channels, -1)
        lows, highs = rows.min(axis=1).astype(np.float64), rows.max(axis=1).astype(np.float64)
        few = rows[:, :: max(1, rows.size // _SAMPLE)].astype(np.float64)
        many, many_error = self._best_clip(few, lows, highs)
        worth = 0.5 * np.log2(max(one_error, _LEAST_ERROR) / max(many_error, _LEAST_ERROR))
        return many if worth > 8 * _RANGE.size * (channels - 1) / spec.elements else one

    def _best_clip(
        self, rows: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
    ) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], float]:
        """The clip of least error on a sample; a range that begins at 0, as after a ReLU, keeps its 0."""
        best, least = None, np.inf
        for share in _CLIPS[self._bits]:
            middle = np.where(low >= 0, low, np.where(high <= 0, high, (low + high) / 2))
            first, last = middle + share * (low - middle), middle + share * (high - middle)
            step = np.maximum((last - first) / self._levels, 1e-38)
            whole = np.clip(np.rint((rows - first[:, None]) / step[:, None]), 0, self._levels)
            error = float(np.mean((whole * step[:, None] + first[:, None] - rows) ** 2))
            if error < least:
                best, least = (first, step), error
        assert best is not None
        return best, least

    def _packed(self, whole: NDArray[np.uint8]) -> bytes:
        per_byte = 8 // self._bits
        if per_byte == 1:
            return whole.tobytes()
        padded = np.zeros(-(-whole.size // per_byte) * per_byte, np.uint8)
        padded[: whole.size] = whole
        parts = padded.reshape(-1, per_byte)
        out = parts[:, 0].copy()
        for place in range(1, per_byte):
            out |= parts[:, place] << np.uint8(self._bits * place)
        return out.tobytes()

    def _unpacked(self, data: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
        per_byte = 8 // self._bits
        if per_byte == 1:
            return data
        out = np.empty((data.size, per_byte), np.uint8)
        for place in range(per_byte):
            out[:, place] = (data >> np.uint8(self._bits * place)) & np.uint8(self._levels)
        return out.reshape(-1)[:count]


def _channels(spec: ArraySpec) -> int:
    """Size of dimension 1, where there is one that could have ranges of its own."""
    return max(1, spec.stored_shape[1]) if len(spec.shape) >= 3 and spec.elements else 1
