"""Whole runs: repeatability, conservation, and figures that queueing theory or arithmetic knows."""

from __future__ import annotations

import numpy as np
import pytest

from splitinfer.errors import InputError
from splitinfer.scheduling import FixedCut, MyopicCut, Observation, RandomCut
from splitinfer.scheduling.policy import Cuts
from splitinfer.simulation import Scenario, simulate, simulate_batch
from splitinfer.simulation.build import setting_of
from tests.simulation.small import LITTLE, profile_from, small_scenario

LOCAL, EDGE = FixedCut(), FixedCut([0, 0])


class Recorder:
    """Plays given cuts and keeps what it was shown."""

    name = "recorder"

    def __init__(self, cuts):
        self.plan = cuts
        self.seen = []

    def reset(self, setting, rng):
        self.setting = setting
        self.seen.clear()

    def cuts(self, observation):
        self.seen.append(observation)
        return np.broadcast_to(self.plan[len(self.seen) % len(self.plan)], self.setting.active.shape)

    def __deepcopy__(self, memo):
        return self


@pytest.mark.parametrize("policy", [FixedCut([1, 0]), RandomCut(), MyopicCut()])
def test_the_same_seed_gives_the_same_run(policy):
    scenario = small_scenario(channel="correlated", arrivals="bursty")
    first, second = (simulate(scenario, policy, 3000, seed=4) for _ in range(2))
    other = simulate(scenario, policy, 3000, seed=5)
    np.testing.assert_array_equal(first.latency_s, second.latency_s)
    assert first.energy_j == second.energy_j
    assert other.energy_j != first.energy_j


def test_policies_are_compared_in_the_same_world():
    scenario = small_scenario()
    runs = [simulate(scenario, policy, 4000, seed=1) for policy in (LOCAL, EDGE, RandomCut(), MyopicCut())]
    for run in runs[1:]:
        np.testing.assert_array_equal(run.arrived_by_service, runs[0].arrived_by_service)
        np.testing.assert_allclose(run.utilisation.max_rate_bps, runs[0].utilisation.max_rate_bps)


def test_the_scenarios_seed_is_another_world():
    one, two = (simulate(small_scenario(seed=seed), LOCAL, 4000) for seed in (0, 1))
    assert one.energy_j != two.energy_j


def test_a_batch_is_its_runs_one_by_one():
    scenario = small_scenario()
    policies, seeds = [LOCAL, RandomCut(), MyopicCut(), RandomCut()], [0, 1, 0, 2]
    for run, policy, seed in zip(
        simulate_batch(scenario, policies, seeds=seeds, slots=1500), policies, seeds, strict=True
    ):
        alone = simulate(scenario, policy, 1500, seed)
        np.testing.assert_array_equal(run.latency_s, alone.latency_s)
        assert run.energy_j == pytest.approx(alone.energy_j, rel=1e-12)


@pytest.mark.parametrize("policy", [LOCAL, EDGE, RandomCut(), MyopicCut()])
def test_every_request_is_counted_once(policy):
    run = simulate(small_scenario(arrival_rate_hz=4.0), policy, 5000, seed=3)
    assert run.arrived == run.finished + run.in_flight
    assert run.in_flight >= 0
    assert len(run.latency_s) == run.finished
    tasks = run.tasks
    np.testing.assert_allclose(run.latency_s, (tasks.finish_slot + 1 - tasks.arrival_slot) * run.slot_s)
    by_service = np.zeros_like(run.finished_by_service)
    np.add.at(by_service, (tasks.device, tasks.service), 1)
    np.testing.assert_array_equal(by_service, run.finished_by_service)


def test_local_energy_is_what_the_requests_need():
    # Flat out, a cycle costs delta F^2: the energy of a run is its cycles times that, slot after slot.
    scenario = small_scenario(services=(LITTLE,), arrival_rate_hz=2.0, local_energy_weight=0.0)
    run = simulate(scenario, LOCAL, 20_000)
    cycles = 100_000_000 * 0.12
    per_task_j = cycles * 1e-28 * 1.5e9**2
    # 12 Mcycles fit one slot (15 Mcycles), so a request alone runs at cycles / tau: below F.
    alone_j = 0.01 * 1e-28 * (cycles / 0.01) ** 3
    assert run.energy_transmission_j == 0
    assert alone_j <= run.energy_per_task_j <= per_task_j
    assert run.energy_per_task_j == pytest.approx(alone_j, rel=0.05)


def test_waiting_follows_pollaczek_and_khinchine():
    # One service, Poisson arrivals, a fixed number of slots per request: M/D/1 in steps of a slot.
    slots_each, load = 20, 0.7
    macs = int(slots_each * 0.01 * 1.5e9 / 0.12)
    one = profile_from("one", (0, macs), (10_000, 0))
    scenario = small_scenario(
        services=(one,), num_devices=1, arrival_rate_hz=load / (slots_each * 0.01), local_energy_weight=0.0
    )
    runs = simulate_batch(scenario, [LOCAL] * 4, seeds=range(4), slots=400_000)
    mean_slots = np.mean(np.concatenate([run.latency_s for run in runs])) / 0.01
    waiting = load * slots_each / (2 * (1 - load))
    # A request is served from the slot after its own on, and arrivals of one slot also wait for one another; together
    # that is one slot more and half a slot less than in continuous time.
    assert mean_slots == pytest.approx(slots_each + waiting + 0.5, rel=0.04)
    assert np.mean([run.utilisation.local[0] for run in runs]) == pytest.approx(load, rel=0.02)


def test_overload_is_reported_and_load_is_not():
    scenario = small_scenario(services=(LITTLE,), num_devices=2)  # 8 ms a request
    calm = simulate(scenario.replace(arrival_rate_hz=100.0), LOCAL, 20_000)
    drowned = simulate(scenario.replace(arrival_rate_hz=140.0), LOCAL, 20_000)
    assert calm.stability.stable
    assert set(drowned.stability.growing) == {"device 0 local", "device 1 local"}
    assert drowned.utilisation.local == pytest.approx([1.0, 1.0], abs=0.01)


def test_the_reference_solver_agrees():
    scenario = small_scenario(
        num_devices=1, arrival_rate_hz=3.0, local_energy_weight=1e17, transmission_energy_weight=1e10
    )
    closed, reference = (simulate(scenario, FixedCut([1, 0]), 150, solver=s) for s in ("closed-form", "cvxpy"))
    assert closed.finished == reference.finished > 0
    assert closed.energy_j == pytest.approx(reference.energy_j, rel=1e-3)


def test_what_a_policy_is_shown():
    scenario = small_scenario(arrival_rate_hz=5.0, slots_per_period=4)
    policy = Recorder(np.array([[1, 0], [2, 2]]))
    run = simulate(scenario, policy, 402, seed=2, trace=1)
    assert len(policy.seen) == 101
    first, later = policy.seen[0], policy.seen[40]
    assert not first.local_queue_cycles.any()
    assert not first.max_rate_bps.any()
    period = slice(39 * 4, 40 * 4)
    np.testing.assert_allclose(
        later.local_queue_cycles, run.trace.backlog[period, 0].mean(axis=0), rtol=1e-9, atol=1e-3
    )
    np.testing.assert_allclose(
        later.transmission_queue_bits, run.trace.backlog[period, 1].mean(axis=0), rtol=1e-9, atol=1e-3
    )
    np.testing.assert_allclose(later.edge_frequency_hz, run.trace.service_rate[period, 2].mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(later.power_w, run.trace.power_w[period].mean(axis=0), rtol=1e-9)
    np.testing.assert_array_equal(later.cuts, run.trace.cuts[39 * 4])
    setting = setting_of(scenario)
    for device, service in np.ndindex(2, 2):
        cut = later.cuts[device, service]
        profile = scenario.profiles[device][service]
        assert later.local_ratio[device, service] == pytest.approx(profile.compute_ratio[cut])
        assert later.feature_ratio[device, service] == pytest.approx(profile.feature_ratio[cut])
        assert later.edge_ratio[device, service] == pytest.approx(1 - profile.compute_ratio[cut])
    assert np.all(later.max_rate_bps * setting.slot_s >= 0)


def test_random_cuts_reach_every_cut_and_leave_the_world_alone():
    run = simulate(small_scenario(), RandomCut(), 4000, trace=10)
    assert set(run.trace.cuts[:, 0, 0]) == {0, 1, 2, 3}
    assert set(run.trace.cuts[:, 1, 1]) == {0, 1, 2}


@pytest.mark.parametrize("policy", [LOCAL, RandomCut()])
@pytest.mark.parametrize(("every", "samples"), [(1, 1000), (5, 200), (40, 25), (1000, 1)])
def test_traces_are_as_dense_as_asked(policy, every, samples):
    run = simulate(small_scenario(), policy, 1000, trace=every)
    np.testing.assert_array_equal(run.trace.slot, np.arange(samples) * every)
    assert run.trace.cuts.shape == (samples, 2, 2)
    assert simulate(small_scenario(), policy, 1000).energy_j == pytest.approx(run.energy_j, rel=1e-9)


def test_devices_with_fewer_services_are_padded_with_nothing():
    scenario = small_scenario(services=((LITTLE, LITTLE), (LITTLE,)), arrival_rate_hz=5.0)
    for policy in (LOCAL, RandomCut(), MyopicCut(), FixedCut([[0, 1], [2, 0]])):
        run = simulate(scenario, policy, 1000)
        assert run.arrived_by_service[1, 1] == 0
        assert not run.mean_queue[:, 1, 1].any()


def test_a_run_without_a_single_request():
    run = simulate(small_scenario(arrival_rate_hz=0.0), RandomCut(), 200)
    assert (run.arrived, run.finished, run.energy_j) == (0, 0, 0.0)
    assert run.stability.stable
    assert np.isnan(run.latency_percentile_s(95))
    assert run.to_dict()["energy_per_task_j"] is None


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"slots": 0}, "slots"),
        ({"seed": -1}, "seed"),
        ({"trace": 0}, "trace"),
        ({"solver": "magic"}, "solver"),
    ],
)
def test_impossible_arguments_are_refused(arguments, name):
    with pytest.raises(InputError, match=name):
        simulate(small_scenario(), LOCAL, **({"slots": 100} | arguments))


@pytest.mark.parametrize("cuts", [[0], [0, 0, 0], [0, 3], [-1, 0], [0.5, 0.0], [[0, 0]]])
def test_cuts_that_do_not_fit_are_refused(cuts):
    with pytest.raises(InputError, match="cuts"):
        simulate(small_scenario(), FixedCut(cuts), 100)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (1, r"need shape \(2,\) or \(4, 2\), not \(\)"),
        ([[1]] * 4, r"not \(4, 1\)"),
        ([[1, 2], [1]], "inhomogeneous"),
        ([0.5, 1.0], "whole numbers"),
        ([0, 55], "cut 55 of service 1"),
        (None, r"not \(\)"),
    ],
)
def test_a_policy_that_answers_nonsense_is_told(answer: object, words: str) -> None:
    class Own(FixedCut):
        def cuts(self, observation: Observation) -> Cuts:
            return answer  # type: ignore[return-value]

    with pytest.raises(InputError, match=words):
        simulate(Scenario.preset("table2"), Own(), slots=2, seed=0)
