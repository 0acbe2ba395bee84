"""The energy of one slot, equations (5) and (6), by hand."""

from __future__ import annotations

import numpy as np
import pytest

from splitinfer.energy import local_energy_j, transmission_energy_j


def test_local_energy_by_hand():
    # 0.01 s at 1.5 GHz with delta 1e-28: 1e-28·3.375e27 = 0.3375 W.
    assert local_energy_j(0.01, 1e-28, 1.5e9) == pytest.approx(3.375e-3)
    assert local_energy_j(0.01, 1e-28, 0.0) == 0.0


def test_half_the_speed_for_twice_as_long_costs_a_quarter():
    assert 2 * local_energy_j(0.01, 1e-28, 0.5e9) == pytest.approx(local_energy_j(0.01, 1e-28, 1e9) / 4)


def test_transmission_energy_by_hand():
    assert transmission_energy_j(0.01, 0.3) == pytest.approx(3e-3)


def test_arrays_broadcast():
    frequency = np.array([0.0, 1e9, 2e9])
    np.testing.assert_allclose(local_energy_j(0.01, np.full((2, 1), 1e-28), frequency), [[0, 1e-3, 8e-3]] * 2)
    np.testing.assert_allclose(transmission_energy_j(0.01, np.array([0.1, 0.2])), [1e-3, 2e-3])
