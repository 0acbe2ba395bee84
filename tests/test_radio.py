"""Path loss, Shannon rate and its inverse, against decimal arithmetic with 60 digits."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitinfer.errors import InputError
from splitinfer.radio import mean_gain, power_w, rate_bps

BAND = {"bandwidth_hz": 250e3, "noise_w_per_hz": 4e-21}


def exact_rate(power, gain, bandwidth, noise):
    with localcontext() as context:
        context.prec = 60
        power, gain, bandwidth, noise = (Decimal(float(x)) for x in (power, gain, bandwidth, noise))
        return bandwidth * (1 + power * gain / (bandwidth * noise)).ln() / Decimal(2).ln()


def exact_power(rate, gain, bandwidth, noise):
    with localcontext() as context:
        context.prec = 60
        rate, gain, bandwidth, noise = (Decimal(float(x)) for x in (rate, gain, bandwidth, noise))
        return bandwidth * noise / gain * ((rate / bandwidth * Decimal(2).ln()).exp() - 1)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.floats(-12, 12), st.floats(-14, -6))
def test_both_directions_are_accurate_from_tiny_to_huge_snr(log_snr, log_gain):
    gain = 10.0**log_gain
    power = 10.0**log_snr * BAND["bandwidth_hz"] * BAND["noise_w_per_hz"] / gain
    rate = float(rate_bps(power, gain=gain, **BAND))
    assert rate == pytest.approx(float(exact_rate(power, gain, *BAND.values())), rel=1e-14)
    assert float(power_w(rate, gain=gain, **BAND)) == pytest.approx(
        float(exact_power(rate, gain, *BAND.values())), rel=1e-13
    )
    assert float(power_w(rate, gain=gain, **BAND)) == pytest.approx(power, rel=1e-13)


def test_worked_by_hand():
    # SNR 1, 3 and 1023: 1, 2 and 10 bits per second and hertz.
    unit = {"gain": 1.0, "bandwidth_hz": 1e6, "noise_w_per_hz": 1e-6}
    assert rate_bps([1.0, 3.0, 1023.0], **unit) == pytest.approx([1e6, 2e6, 1e7])
    assert power_w([0.0, 1e6, 2e6, 1e7], **unit) == pytest.approx([0.0, 1.0, 3.0, 1023.0])


def test_mean_gain_of_table2():
    # 3·3e8 / (4·pi·915e6·150) = 5.2182e-4; cubed.
    assert mean_gain(150.0) == pytest.approx(1.42093e-10, rel=1e-5)
    assert mean_gain([150.0, 300.0])[0] == pytest.approx(8 * mean_gain(300.0))
    free_space = mean_gain(100.0, antenna_gain=1.0, path_loss_exponent=2.0, carrier_hz=2.4e9)
    assert free_space == pytest.approx((0.125 / (4 * np.pi * 100)) ** 2)


def test_shapes_broadcast():
    gains = np.array([[1e-10], [1e-11], [1e-12]])
    assert rate_bps([0.1, 0.3], gain=gains, **BAND).shape == (3, 2)


def test_deep_fades():
    assert rate_bps(0.3, gain=0.0, **BAND) == 0.0
    assert power_w([0.0, 1.0], gain=0.0, **BAND).tolist() == [0.0, np.inf]


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: rate_bps(-0.1, gain=1.0, **BAND), "power_w"),
        (lambda: rate_bps(0.1, gain=np.nan, **BAND), "gain"),
        (lambda: rate_bps(0.1, gain=1.0, bandwidth_hz=0.0, noise_w_per_hz=1.0), "bandwidth_hz"),
        (lambda: power_w(-1.0, gain=1.0, **BAND), "rate_bps"),
        (lambda: power_w(1.0, gain=1.0, bandwidth_hz=1.0, noise_w_per_hz=-1.0), "noise_w_per_hz"),
        (lambda: mean_gain(0.0), "distance_m"),
        (lambda: mean_gain(10.0, carrier_hz=-1.0), "carrier_hz"),
    ],
)
def test_nonsense_is_refused_by_name(call, field):
    with pytest.raises(InputError, match=rf"^{field} "):
        call()
