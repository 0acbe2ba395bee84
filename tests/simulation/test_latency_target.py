"""Weights from latency targets: met by simulation, at less energy than running flat out."""

from __future__ import annotations

import numpy as np
import pytest

from splitinfer.scheduling import FixedCut, MyopicCut
from splitinfer.scheduling.latency_target import LatencyTarget
from splitinfer.simulation import simulate
from splitinfer.simulation.build import setting_of
from tests.simulation.small import small_scenario

SCENARIO = small_scenario(num_devices=1, arrival_rate_hz=3.0)


def p95_s(run, service):
    return np.percentile(run.service_latency_s(0, service), 95)


@pytest.mark.parametrize("cuts", [[3, 2], [0, 0], [2, 1]])
def test_each_service_meets_its_own_target(cuts):
    targets = (0.8, 0.4)
    run = simulate(SCENARIO.replace(p95_latency_s=targets), FixedCut(cuts), 40_000)
    plain = simulate(SCENARIO, FixedCut(cuts), 40_000)
    for service, target in enumerate(targets):
        assert p95_s(plain, service) < 0.7 * target, "the target must leave something to save"
        assert p95_s(run, service) == pytest.approx(target, rel=0.1)
    assert run.energy_j < 0.8 * plain.energy_j
    assert run.stability.stable


def test_a_policy_that_moves_cuts_meets_it_too():
    run = simulate(SCENARIO.replace(p95_latency_s=0.6), MyopicCut(), 40_000)
    for service in range(2):
        assert 0.75 * 0.6 < p95_s(run, service) < 1.1 * 0.6


def test_what_cannot_be_met_runs_as_fast_as_it_can():
    run = simulate(SCENARIO.replace(p95_latency_s=0.02), FixedCut([3, 3 - 1]), 5000)
    flat_out = simulate(SCENARIO.replace(local_energy_weight=0.0), FixedCut([3, 2]), 5000)
    assert run.latency_s.mean() == pytest.approx(flat_out.latency_s.mean(), rel=0.15)


def test_a_service_without_a_target_keeps_the_scenarios_weights():
    run = simulate(SCENARIO.replace(p95_latency_s=(0.0, 0.5)), FixedCut([3, 0]), 20_000)
    plain = simulate(SCENARIO, FixedCut([3, 0]), 20_000)
    assert p95_s(run, 0) == pytest.approx(p95_s(plain, 0), rel=0.1)
    assert p95_s(run, 1) == pytest.approx(0.5, rel=0.15)


def test_the_same_seed_gives_the_same_run():
    scenario = SCENARIO.replace(p95_latency_s=0.5)
    runs = [simulate(scenario, FixedCut([1, 1]), 5000, seed=3) for _ in range(2)]
    np.testing.assert_array_equal(runs[0].latency_s, runs[1].latency_s)
    assert runs[0].energy_j == runs[1].energy_j


def controller(**settings):
    return LatencyTarget(setting_of(SCENARIO), np.array([[1.0, 0.0]]), **settings)


def feed(target, latencies_s):
    for latency_s in latencies_s:
        target.arrived(np.array([0.0]), np.array([0]), np.array([0]))
        target.finished(np.array([0]), np.array([0]), np.array([latency_s]))
    target.adapt(0.0, np.array([[3, 2]]), np.array([3e6]))


def test_late_requests_raise_the_weight_of_the_backlog_and_timely_ones_lower_it():
    target = controller()
    feed(target, [0.5])
    before = target.queue_weight.copy()
    feed(target, [2.0])
    late = target.queue_weight.copy()
    feed(target, [0.5] * 100)
    assert late[0, 0] > before[0, 0] > target.queue_weight[0, 0]
    assert before[0, 1] == late[0, 1], "no target, no change"


def test_at_the_wanted_share_of_late_requests_nothing_moves():
    target = controller()
    feed(target, [0.5] * 2000)
    settled = np.log(target.queue_weight[0, 0])
    feed(target, ([0.5] * 19 + [1.5]) * 10)
    assert np.log(target.queue_weight[0, 0]) == pytest.approx(settled, abs=0.25)


def test_requests_that_never_finish_count_as_late_once():
    target = controller()
    target.arrived(np.array([0.0, 0.1]), np.array([0, 0]), np.array([0, 0]))
    before = target.queue_weight[0, 0]
    for now_s in (1.05, 1.5, 9.0):
        target.adapt(now_s, np.array([[3, 2]]), np.array([3e6]))
    assert target.late[0, 0] == 2
    assert target.queue_weight[0, 0] > before
    target.finished(np.array([0, 0]), np.array([0, 0]), np.array([9.0, 9.0]))
    assert target.judged[0, 0] == 2
