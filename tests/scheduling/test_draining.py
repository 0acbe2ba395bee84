"""One task alone, through the simulator slot by slot, against what the closed forms say it costs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitinfer.scheduling.draining import link_added_j, link_rate_bps, local_added_j, local_drain_s

F_HZ, DELTA, SLOT_S = 1.5e9, 1e-28, 0.01
BANDWIDTH_HZ, NOISE, POWER_W = 2.5e5, 3.98e-21, 0.3


def _served_alone(cycles, weight):
    """Energy and time of a queue that is served slot by slot as Problem 3 has it."""
    energy, slots = 0.0, 0
    while cycles > 1e-6:
        frequency = min(F_HZ, np.sqrt(cycles / (3 * weight * DELTA)), cycles / SLOT_S)
        energy += SLOT_S * DELTA * frequency**3
        cycles -= frequency * SLOT_S
        slots += 1
    return energy, slots * SLOT_S


@given(st.floats(1e4, 1e9))
def test_flat_out_the_last_slot_is_cheap_and_the_energy_exact(cycles):
    energy, _ = _served_alone(cycles, 1e9)
    added = local_added_j(
        0.0, cycles, slot_s=SLOT_S, max_frequency_hz=F_HZ, energy_coefficient=DELTA, energy_weight=1e9
    )
    assert added == pytest.approx(energy, rel=1e-9)


@pytest.mark.parametrize("cycles", [2e8, 6e8])
def test_by_choice_slow_energy_and_time_are_those_of_the_slots(cycles):
    # The tail of such a queue drains ever more slowly; the integral runs to its end, and so do the slots here.
    energy, seconds = _served_alone(cycles, 3e17)
    station = {"max_frequency_hz": F_HZ, "energy_coefficient": DELTA, "energy_weight": 3e17}
    assert local_added_j(0.0, cycles, slot_s=SLOT_S, **station) == pytest.approx(energy, rel=0.1)
    assert local_drain_s(cycles, **station) == pytest.approx(seconds, rel=0.1)


def test_behind_others_a_small_task_costs_its_full_share():
    station = {"slot_s": SLOT_S, "max_frequency_hz": F_HZ, "energy_coefficient": DELTA, "energy_weight": 1e9}
    share = DELTA * F_HZ**2 * 1e5
    assert local_added_j(1e9, 1e5, **station) == pytest.approx(share)
    assert local_added_j(0.0, 1e5, **station) < 1e-3 * share


@given(st.floats(1e3, 1e7), st.sampled_from([1e6, 1e12, 1e13]))
def test_a_transfer_alone_costs_its_slots(bits, weight):
    gain = 1e-11
    full = BANDWIDTH_HZ * np.log2(1 + POWER_W * gain / (BANDWIDTH_HZ * NOISE))
    link = {"full_rate_bps": full, "bandwidth_hz": BANDWIDTH_HZ, "max_power_w": POWER_W}
    rate = link_rate_bps(bits / 2, energy_weight=weight, **link)
    wanted = BANDWIDTH_HZ * np.log2(bits / 2 * gain / (weight * NOISE * np.log(2)))
    assert rate == pytest.approx(np.clip(wanted, 0.01 * full, full))
    left, energy = bits, 0.0
    while left > 1e-6:
        now = min(rate, left / SLOT_S)
        energy += SLOT_S * BANDWIDTH_HZ * NOISE / gain * (2 ** (now / BANDWIDTH_HZ) - 1)
        left -= now * SLOT_S
    assert link_added_j(0.0, bits, rate_bps=rate, slot_s=SLOT_S, **link) == pytest.approx(energy, rel=1e-6)
