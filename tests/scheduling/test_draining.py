"""One task alone, through the simulator slot by slot, against what the closed forms say it costs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitinfer.scheduling.draining import (
    link_added_j,
    link_rate_bps,
    local_added_j,
    local_backlog_cycle_s,
    local_drain_s,
    local_followers_j,
)

F_HZ, DELTA, SLOT_S = 1.5e9, 1e-28, 0.01
BANDWIDTH_HZ, NOISE, POWER_W = 2.5e5, 3.98e-21, 0.3


def _served(cycles, weight, *, more=0.0, at_s=0.0):
    """Energy, time and integral of a queue that is served slot by slot as Problem 3 has it; ``more`` comes later."""
    energy, slots, held = 0.0, 0, 0.0
    while cycles > 1e-6 or slots * SLOT_S < at_s:
        if slots == round(at_s / SLOT_S):
            cycles += more
        frequency = min(F_HZ, np.sqrt(cycles / (3 * weight * DELTA)), cycles / SLOT_S)
        energy += SLOT_S * DELTA * frequency**3
        held += SLOT_S * cycles
        cycles -= frequency * SLOT_S
        slots += 1
    return energy, slots * SLOT_S, held


def _served_alone(cycles, weight):
    return _served(cycles, weight)[:2]


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


@pytest.mark.parametrize("cycles", [2e8, 6e8, 3e9])
def test_the_queue_is_held_as_long_as_the_slots_hold_it(cycles):
    station = {"max_frequency_hz": F_HZ, "energy_coefficient": DELTA, "energy_weight": 3e17}
    _, _, held = _served(cycles, 3e17)
    assert local_backlog_cycle_s(cycles, **station) == pytest.approx(held, rel=0.05)


def test_who_comes_later_pays_for_what_is_queued():
    """A second task at every slot of the first one's stay: the mean of what both spend more than each alone."""
    weight, first, second = 3e17, 1e8, 3e7
    alone = _served(first, weight)[0] + _served(second, weight)[0]
    stay_s = _served(first, weight)[1]
    offsets_s = np.arange(0, stay_s, SLOT_S)
    more = [_served(first, weight, more=second, at_s=at_s)[0] - alone for at_s in offsets_s]
    # One such task a second.
    expected = np.sum(more) * SLOT_S
    station = {"max_frequency_hz": F_HZ, "energy_coefficient": DELTA, "energy_weight": weight}
    added = local_followers_j(
        first / 2, local_backlog_cycle_s(first, **station), load_hz=second, slot_s=SLOT_S, **station
    )
    assert added == pytest.approx(expected, rel=0.1)
    flat_out = station | {"energy_weight": 1e9}
    assert local_followers_j(first / 2, 1e8, load_hz=second, slot_s=SLOT_S, **flat_out) == 0


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


@pytest.mark.parametrize("weight", [0.0, 1e-30])
def test_where_energy_weighs_nothing_what_waits_goes_at_the_full_rate(weight):
    link = {"full_rate_bps": 1e6, "bandwidth_hz": BANDWIDTH_HZ, "max_power_w": POWER_W}
    rate = link_rate_bps(np.array([0.0, 1e3]), energy_weight=np.array(weight), **link)
    assert rate.tolist() == [1e4, 1e6]
