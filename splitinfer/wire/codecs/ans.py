"""Few levels at even steps, entropy-coded by asymmetric numeral systems: about half a bit to two bits an element.

Under an entropy coder rare levels cost little, so levels lie at even steps of a share of the tensor's spread instead of
filling its range, and a dead zone sends what is small to the middle level (Sullivan, 1996). What comes back for a level
is the mean of what went into it. How often each occurs is written per tensor, or per channel (dimension 1) where that
takes fewer bytes, in 256ths: probabilities are exact in binary and the same on every machine.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitinfer.errors import InputError, MissingExtraError
from splitinfer.wire.codecs.base import Buffer
from splitinfer.wire.dtypes import Array, DType
from splitinfer.wire.layout import ArraySpec

PACKAGE, EXTRA = "constriction", "ans"
IS_INSTALLED = importlib.util.find_spec(PACKAGE) is not None

_WIDER = (np.dtype(np.float32), np.dtype(np.float64))
_ROUND_UP_FROM = 0.6
"""Of a step: less of it goes to the level nearer to the middle."""
_PER_CHANNEL = 0x80
_WHOLE = 256


class AnsCodec:
    """float32 and float64 as at most ``levels`` levels. Tensors with infinities or NaN stay raw.

    Args:
        name: ends with ``+ans``.
        number: on the wire.
        levels: most of them, 3..16.
        step: of the levels, in root mean squares of the tensor (about its mean where that is far from 0).
        bits: estimate for an element.
    """

    version = 1
    exact = False
    encode_cycles_per_element = 40.0
    decode_cycles_per_element = 25.0

    def __init__(self, name: str, number: int, *, levels: int, step: float, bits: float) -> None:
        self.name = name
        self.number = number
        self._levels = levels
        self._step = step
        self._bits = bits

    def takes(self, dtype: DType) -> bool:
        return dtype in _WIDER

    def bits_per_element(self, dtype: DType) -> float:
        return self._bits

    def max_bytes(self, spec: ArraySpec) -> int:
        payload = spec.elements * (int(self._levels - 1).bit_length() + 2) // 8 + 16
        return 3 + (2 + _channels(spec)) * self._levels + payload

    def encode(self, values: Array, spec: ArraySpec) -> Buffer | None:
        if not spec.elements:
            return b""
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)) or max(abs(low), abs(high)) > 1e38:
            return None
        mean, spread = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
        middle = np.zeros(1, np.float32)
        if abs(mean) > 2 * spread:
            middle = _bfloat16(np.array([mean], np.float32))
        else:
            spread = float(np.hypot(mean, spread))
        about = np.asarray(values, np.float32) - middle
        whole = self._whole(about, spread)
        least = int(whole.min())
        whole -= least
        count = int(whole.max()) + 1
        inside = np.bincount(whole.reshape(-1), about.reshape(-1), count)
        means = _bfloat16((inside / np.maximum(np.bincount(whole.reshape(-1), minlength=count), 1)).astype(np.float32))
        rows, shares = self._rows(whole, spec, count)
        head = bytes([count - 1 | (_PER_CHANNEL if len(rows) > 1 else 0)])
        numbers = np.concatenate([middle, means]).view(np.uint32) >> 16
        return head + numbers.astype("<u2").tobytes() + shares.tobytes() + _coded(rows, shares)

    def decode(self, data: memoryview, spec: ArraySpec) -> Array:
        if not spec.elements:
            if data.nbytes:
                raise InputError(f"{self.name}: {data.nbytes} bytes for no elements")
            return np.zeros(0, spec.dtype)
        count = 1 + (data[0] & ~_PER_CHANNEL) if data.nbytes else 0
        channels = _channels(spec) if data.nbytes and data[0] & _PER_CHANNEL else 1
        begin = 3 + 2 * count
        end = begin + channels * count
        if not 1 <= count <= self._levels or data.nbytes < end:
            raise InputError(f"{data.nbytes} bytes are no {spec.elements} elements of {self.name}")
        numbers = (np.frombuffer(data[1:begin], "<u2").astype(np.uint32) << 16).view(np.float32)
        shares = np.frombuffer(data[begin:end], np.uint8).reshape(channels, count)
        with np.errstate(over="ignore", invalid="ignore"):
            levels = numbers[1:] + numbers[0]
        if not np.isfinite(levels).all() or not ((shares.sum(axis=1) == _WHOLE) | _is_certain(shares)).all():
            raise InputError(f"{self.name}: its table of levels is not one")
        if channels == 1:
            whole = self._decoded(data[end:], shares, spec.elements)[0]
            return np.asarray(np.take(levels, whole), spec.dtype)
        others = [size for dim, size in enumerate(spec.stored_shape) if dim != 1]
        rows = self._decoded(data[end:], shares, spec.elements // channels)
        stored = np.moveaxis(np.take(levels, rows).reshape(channels, *others), 0, 1)
        return np.ascontiguousarray(spec.flatten(stored), spec.dtype)

    def _whole(self, about: NDArray[np.float32], spread: float) -> NDArray[np.int64]:
        """The level of each value: 0 is the middle."""
        step = np.float32(self._step * spread)
        if not step > 0:
            return np.zeros(about.shape, np.int64)
        with np.errstate(over="ignore"):
            scaled = about / step
        scaled += np.copysign(np.float32(1 - _ROUND_UP_FROM), scaled)
        lowest, highest = float(scaled.min()), float(scaled.max())
        below = 0 if lowest >= 0 else self._levels - 1 if highest <= 0 else (self._levels - (highest > -lowest)) // 2
        return np.asarray(np.clip(scaled, -below - 0.5, self._levels - 1 - below + 0.5), np.int64)  # cuts fractions off

    def _rows(
        self, whole: NDArray[np.int64], spec: ArraySpec, count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Levels in the order in which they are coded, one row or one per channel, and the shares that rows are coded
        with, (rows, count)."""
        one = spec.flatten(whole).reshape(1, -1)
        shares, bits = _shares(one, count)
        channels = _channels(spec)
        if channels == 1:
            return one, shares
        rows = np.moveaxis(whole, 1, 0).reshape(channels, -1)
        many, fewer_bits = _shares(rows, count)
        return (rows, many) if fewer_bits < bits else (one, shares)

    def _decoded(self, payload: memoryview, shares: NDArray[np.uint8], length: int) -> NDArray[np.int32]:
        rows = np.empty((len(shares), length), np.int32)
        stream = _stream()
        try:
            words = bytes(payload) + bytes(-payload.nbytes % 4)
            coder = stream.stack.AnsCoder(np.frombuffer(words, "<u4").astype(np.uint32))
            for row, share in zip(rows, shares, strict=True):
                row[:] = share.argmax() if _is_certain(share) else coder.decode(_model(stream, share), length)
            left = not coder.is_empty()
        except (ValueError, AssertionError, RuntimeError) as error:
            raise InputError(f"{self.name}: {error}") from None
        if left:
            raise InputError(f"{self.name}: the bytes are no {rows.size} elements")
        return rows


def _coded(rows: NDArray[np.int64], shares: NDArray[np.uint8]) -> bytes:
    stream = _stream()
    coder = stream.stack.AnsCoder()
    for row, share in zip(rows[::-1], shares[::-1], strict=True):  # what is coded last is decoded first
        if not _is_certain(share):
            coder.encode_reverse(row.astype(np.int32), _model(stream, share))
    words: bytes = coder.get_compressed().astype("<u4").tobytes()
    return words.rstrip(b"\0")  # of the last word, which is not 0


def _model(stream: Any, share: NDArray[np.uint8]) -> Any:
    return stream.model.Categorical(share.astype(np.float32) / np.float32(_WHOLE), perfect=False)


def _shares(rows: NDArray[np.int64], count: int) -> tuple[NDArray[np.uint8], float]:
    """How often each level occurs in each row, in 256ths, and the bits of the rows and this table.

    A level that occurs at all has at least one 256th; a row of one level alone has 255 of it and needs no bits.
    """
    places = rows + count * np.arange(len(rows))[:, None]
    occurs = np.bincount(places.reshape(-1), minlength=count * len(rows)).reshape(-1, count)
    shares = np.where(occurs, np.maximum(occurs * _WHOLE // rows.shape[1], 1), 0)
    most = shares.argmax(axis=1)
    shares[np.arange(len(rows)), most] += _WHOLE - shares.sum(axis=1)
    bits = -float((occurs * np.log2(np.maximum(shares, 1) / _WHOLE)).sum()) + 8 * shares.size
    return np.minimum(shares, _WHOLE - 1).astype(np.uint8), bits


def _is_certain(shares: NDArray[np.uint8]) -> Any:
    """Whether a row holds one level alone."""
    return (shares.max(axis=-1) == _WHOLE - 1) & (shares.sum(axis=-1) == _WHOLE - 1)


def _bfloat16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to what 16 bits hold."""
    return ((values.view(np.uint32) + 0x8000) & 0xFFFF0000).view(np.float32)


def _channels(spec: ArraySpec) -> int:
    return max(1, spec.stored_shape[1]) if len(spec.shape) >= 3 and spec.elements else 1


def _stream() -> Any:
    try:
        from constriction import stream
    except ImportError as error:
        raise MissingExtraError(PACKAGE, EXTRA) from error
    return stream
