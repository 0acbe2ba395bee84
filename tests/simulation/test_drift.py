"""Timetables of a moving world."""

from __future__ import annotations

import numpy as np
import pytest

from splitinfer.simulation.build import setting_of
from splitinfer.simulation.drift import Drift, Timeline
from splitinfer.simulation.surroundings import Surroundings
from tests.simulation.small import small_scenario

STEPS = [{"at_s": 0.0}, {"at_s": 1.0}, {"at_s": 3.0}]
VALUES = np.array([10.0, 20.0, 40.0])


def timeline(**fields):
    return Timeline(Drift(steps=STEPS, **fields), VALUES, slot_s=0.5)


def test_steps_hold_until_the_next_and_the_last_for_ever():
    np.testing.assert_array_equal(timeline().between(0, 9), [10, 10, 20, 20, 20, 20, 40, 40, 40])


def test_a_cycle_begins_anew():
    values = timeline(cycle_s=4.0).between(0, 16)
    np.testing.assert_array_equal(values[:8], [10, 10, 20, 20, 20, 20, 40, 40])
    np.testing.assert_array_equal(values[8:], values[:8])


def test_linear_change_goes_evenly_and_back_to_the_start():
    values = timeline(cycle_s=4.0, change="linear").between(0, 8)
    np.testing.assert_allclose(values, [12.5, 17.5, 22.5, 27.5, 32.5, 37.5, 32.5, 17.5])
    np.testing.assert_allclose(timeline(change="linear").between(6, 2), [40, 40])


@pytest.mark.parametrize("first", [0, 3, 8])
def test_parts_agree_with_the_whole(first):
    line = timeline(cycle_s=4.0, change="linear")
    np.testing.assert_array_equal(line.between(first, 5), line.between(0, 13)[first : first + 5])


def test_distances_and_rates_move_the_surroundings():
    still = {"arrival_rate_hz": 5.0, "distances_m": 100.0, "channel": "steady"}
    drift = {"steps": [{"at_s": 0.0}, {"at_s": 50.0, "distances_m": 200.0, "arrival_rate_hz": (0.0, 20.0)}]}
    gains, counts = Surroundings(small_scenario(**still, drift=drift), seed=0).draw(10_000)
    assert gains[0] / gains[-1] == pytest.approx([8.0, 8.0])  # twice the distance at exponent 3
    assert np.all(gains[:5000] == gains[0])
    assert np.all(gains[5000:] == gains[-1])
    assert counts[5000:, :, 0].sum() == 0
    assert counts[:5000, :, 0].mean() == pytest.approx(0.05, rel=0.15)
    assert counts[5000:, :, 1].mean() == pytest.approx(0.2, rel=0.1)


def test_work_per_cut_follows_the_formulas():
    world = setting_of(small_scenario(bits_per_element=4.0, cycles_per_mac=0.5))
    np.testing.assert_allclose(world.local_cycles[0, 0], [0, 0.2e9, 0.45e9, 0.5e9])
    np.testing.assert_allclose(world.edge_cycles[0, 0], [0.5e9, 0.3e9, 0.05e9, 0])
    np.testing.assert_allclose(world.transmission_bits[0, 0], [160_000, 240_000, 32_000, 0])
    np.testing.assert_allclose(world.local_cycles[1, 1], [0, 15e6, 50e6, 0])
    assert world.device_bandwidth_hz == 0.5e6
