"""Best-static's search against trying everything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from splitinfer.errors import InputError
from splitinfer.scheduling import BestStaticCut, FixedCut
from splitinfer.simulation import find_best_static, simulate, simulate_batch
from splitinfer.simulation.search import SEARCH_SEED
from tests.simulation.small import small_scenario

QUICK = {"first_slots": 1000, "last_slots": 4000}


@pytest.fixture(scope="module")
def scenario():
    return small_scenario(distances_m=(60.0, 400.0), arrival_rate_hz=(2.0, 4.0))


@pytest.fixture(scope="module")
def found(scenario):
    return find_best_static(scenario, BestStaticCut(**QUICK))


def test_no_other_pair_of_cuts_is_better_for_a_device(scenario, found):
    pairs = list(itertools.product(range(4), range(3)))
    runs = simulate_batch(scenario, [FixedCut(p) for p in pairs], seeds=[SEARCH_SEED] * len(pairs), slots=4000)
    energy = np.array([run.device_energy_local_j + run.device_energy_transmission_j for run in runs])
    stable = np.array([run.stability.stable for run in runs])
    least = np.where(stable[:, None], energy, np.inf).min(axis=0)
    assert found.report.stable
    assert found.report.per_device
    np.testing.assert_allclose(found.report.objective, least, rtol=0.02)


def test_the_cost_of_the_search_is_reported(found):
    assert found.report.candidates >= 2
    assert found.report.device_slots >= 2 * found.report.candidates * QUICK["first_slots"]
    assert found.report.seconds > 0


def test_a_policy_that_was_not_searched_searches_once_by_itself(scenario, found):
    policy = BestStaticCut(**QUICK)
    first = simulate(scenario, policy, 2000, seed=1)
    report = policy.report
    np.testing.assert_array_equal(report.cuts, found.report.cuts)
    second = simulate(scenario, policy, 2000, seed=1)
    assert policy.report is report
    assert first.energy_j == second.energy_j


def test_coordinate_search_comes_to_the_same_end(scenario, found):
    other = find_best_static(scenario, BestStaticCut(**QUICK, max_candidates=1))
    np.testing.assert_allclose(other.report.objective, found.report.objective, rtol=0.02)


def test_one_pair_for_all_devices(scenario, found):
    shared = find_best_static(scenario, BestStaticCut(**QUICK, per_device=False))
    assert np.array_equal(shared.report.cuts[0], shared.report.cuts[1])
    assert shared.report.objective.sum() >= 0.98 * found.report.objective.sum()


def test_cuts_of_another_scenario_are_refused(scenario, found):
    with pytest.raises(InputError, match="another scenario"):
        simulate(scenario.replace(num_devices=3, distances_m=100.0), found, 100)


def test_a_scarce_edge_is_not_filled_by_all_devices_at_once(scenario):
    # 0.12 Gcycles of the big model at 2 requests a second: the edge can take one device's, not two.
    tight = scenario.replace(max_edge_frequency_hz=0.36e9, max_local_frequency_hz=1.0e9, distances_m=60.0)
    policy = find_best_static(tight, BestStaticCut(**QUICK))
    assert policy.report.stable
    assert simulate(tight, policy, 8000, seed=3).stability.stable
