"""The radio link: path loss, Shannon rate (3) and its inverse, the power that a rate costs.

``shannon_rate_bps`` and ``shannon_power_w`` are the bare formulas; they work on numbers and arrays, and the compiled
slot loop compiles these very functions. ``rate_bps`` and ``power_w`` check their arguments and know deep fades.
Both directions keep full relative accuracy at any signal-to-noise ratio: they go through log1p and expm1.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splitinfer.errors import InputError

LN2 = 0.6931471805599453
SPEED_OF_LIGHT_M_S = 3e8  # the paper's value; its Table II constants go with it

Floats = NDArray[np.float64]
Number = TypeVar("Number", float, NDArray[np.float64])


def shannon_rate_bps(power_w: Number, gain: Number, bandwidth_hz: Number, noise_w_per_hz: Number) -> Number:
    """R = b·log2(1 + p·h / (b·N0)), equation (3), bit/s, from W, a gain, Hz above zero and W/Hz above zero."""
    return bandwidth_hz * (np.log1p(power_w * gain / (bandwidth_hz * noise_w_per_hz)) / LN2)  # type: ignore[no-any-return]


def shannon_power_w(rate_bps: Number, gain: Number, bandwidth_hz: Number, noise_w_per_hz: Number) -> Number:
    """p(s) = (b·N0 / h)·(2^(s/b) - 1), the inverse of (3), W, from bit/s, a gain above zero, Hz and W/Hz."""
    return np.expm1(rate_bps / bandwidth_hz * LN2) * (bandwidth_hz * noise_w_per_hz / gain)  # type: ignore[no-any-return]


def mean_gain(
    distance_m: ArrayLike, *, carrier_hz: float = 915e6, antenna_gain: float = 3.0, path_loss_exponent: float = 3.0
) -> Floats:
    """Mean channel power gain, (A_d·3e8 / (4·pi·f_c·distance))^d_e.

    Args:
        distance_m: distance between device and edge, metres, any shape.
        carrier_hz: f_c.
        antenna_gain: A_d.
        path_loss_exponent: d_e.

    Raises:
        InputError: a value is not a finite positive number.
    """
    distance = _positive("distance_m", distance_m)
    carrier = _positive("carrier_hz", carrier_hz)
    antenna = _positive("antenna_gain", antenna_gain)
    exponent = _positive("path_loss_exponent", path_loss_exponent)
    return np.asarray((antenna * SPEED_OF_LIGHT_M_S / (4 * np.pi * carrier * distance)) ** exponent)


def rate_bps(power_w: ArrayLike, *, gain: ArrayLike, bandwidth_hz: ArrayLike, noise_w_per_hz: ArrayLike) -> Floats:
    """Rate that a transmit power carries, equation (3), bits per second; shapes broadcast.

    Args:
        power_w: p, radiated, W.
        gain: h, channel power gain.
        bandwidth_hz: b, Hz.
        noise_w_per_hz: N0, W/Hz.

    Raises:
        InputError: a power or gain is negative, or a bandwidth or noise density not above zero.
    """
    power, channel = _not_negative("power_w", power_w), _not_negative("gain", gain)
    bandwidth, noise = _positive("bandwidth_hz", bandwidth_hz), _positive("noise_w_per_hz", noise_w_per_hz)
    return np.asarray(shannon_rate_bps(power, channel, bandwidth, noise))


def power_w(rate_bps: ArrayLike, *, gain: ArrayLike, bandwidth_hz: ArrayLike, noise_w_per_hz: ArrayLike) -> Floats:
    """Least transmit power that carries a rate, watts; shapes broadcast.

    In a deep fade (``gain`` 0) a rate above zero needs infinite power; a rate of zero never needs any.

    Args:
        rate_bps: s, bit/s.
        gain: h, channel power gain.
        bandwidth_hz: b, Hz.
        noise_w_per_hz: N0, W/Hz.

    Raises:
        InputError: a rate or gain is negative, or a bandwidth or noise density not above zero.
    """
    rate, channel = _not_negative("rate_bps", rate_bps), _not_negative("gain", gain)
    bandwidth, noise = _positive("bandwidth_hz", bandwidth_hz), _positive("noise_w_per_hz", noise_w_per_hz)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        power = shannon_power_w(rate, channel, bandwidth, noise)
    return np.asarray(np.where(rate == 0, 0.0, power))


def _not_negative(name: str, value: ArrayLike) -> Floats:
    array = np.asarray(value, dtype=np.float64)
    if not np.all(np.isfinite(array)) or np.any(array < 0):
        raise InputError(f"{name} must be finite and at least 0, got {value!r}")
    return array


def _positive(name: str, value: ArrayLike) -> Floats:
    array = np.asarray(value, dtype=np.float64)
    if not np.all(np.isfinite(array)) or np.any(array <= 0):
        raise InputError(f"{name} must be finite and above 0, got {value!r}")
    return array
