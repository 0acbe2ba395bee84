"""The learned baselines: PPO over cuts and resources, and DDPG-Cov."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

import torch

import splitinfer
from splitinfer.errors import InputError
from splitinfer.learning import TrainingSettings
from splitinfer.learning.learners import learner
from splitinfer.learning.stacked import stack_settings
from splitinfer.learning.state import state_vector
from splitinfer.learning.training import train
from splitinfer.scheduling import FixedCut, Observation, RandomCut
from splitinfer.scheduling.period import Period
from splitinfer.simulation import Scenario, simulate, simulate_batch
from splitinfer.simulation.build import setting_of
from tests.simulation.small import small_scenario

SCENARIO = small_scenario(arrival_rate_hz=0.8)


def settings(name, slots=16_000, **changes):
    base = TrainingSettings.for_algorithm(name, slots=slots)
    small = {"environments": 4, "periods_per_rollout": 50, "batch_size": 100, "validations": 2, "warm_up_periods": 100}
    return replace(base, **({name: value for name, value in small.items() if hasattr(base, name)} | changes))


@pytest.fixture(scope="module", params=["ppo", "ddpg"])
def run(request, tmp_path_factory):
    return request.param, train(SCENARIO, settings(request.param), tmp_path_factory.mktemp(request.param) / "run")


def test_a_baseline_beats_random_cuts(run):
    _, folder = run
    learned = simulate(SCENARIO, splitinfer.load_policy(folder), slots=10_000, seed=3)
    random = simulate(SCENARIO, RandomCut(), slots=10_000, seed=3)
    assert learned.finished > 0.95 * learned.arrived
    assert learned.energy_j < random.energy_j


def test_the_policy_that_is_loaded_is_the_actor_that_was_kept(run, tmp_path):
    name, folder = run
    record = json.loads((folder / "run.json").read_text())
    assert record["algorithm"] == name
    kept = torch.load(folder / "checkpoint.pt", weights_only=True)["kept"]
    student = learner(SCENARIO, settings(name))
    parameters = student.model.get_parameters()
    for own, theirs in zip(kept, student.actor_names(), strict=True):
        parameters["policy"][theirs] = kept[own]
    student.model.set_parameters(parameters)
    setting = setting_of(SCENARIO)
    stacked = stack_settings([setting])
    state = state_vector(stacked, Period.empty(stacked.num_cuts))
    action, _ = student.model.predict(state, deterministic=True)
    cuts, request = student.layout.decode(action)
    policy = splitinfer.load_policy(folder)
    policy.reset(setting, np.random.default_rng(0))
    observation = Observation.first(setting)
    np.testing.assert_array_equal(state, state_vector(stacked, observation.period.stacked()))
    np.testing.assert_array_equal(policy.cuts(observation), cuts[0])
    if request is not None:
        np.testing.assert_allclose(policy.resources().power_w, request.power_w[0], rtol=1e-5)
        np.testing.assert_allclose(
            policy.resources().local_frequency_hz, request.local_frequency_hz[0], rtol=1e-5, atol=1.0
        )


def test_training_goes_on(run, tmp_path):
    name, _ = run
    folder = train(SCENARIO, settings(name, slots=4_000), tmp_path / "run")
    first = json.loads((folder / "run.json").read_text())["history"]
    train(SCENARIO, settings(name, slots=8_000), folder, resume=True)
    record = json.loads((folder / "run.json").read_text())
    assert record["slots_done"] == 8_000
    assert record["history"]["kept_score"] >= first["kept_score"]


def test_a_baseline_fits_its_services_only(run):
    _, folder = run
    with pytest.raises(InputError, match="other services"):
        simulate(Scenario.preset("table2"), splitinfer.load_policy(folder), slots=100)


def test_a_policy_that_sets_resources_is_simulated_apart(tmp_path):
    policy = splitinfer.load_policy(train(SCENARIO, settings("ppo", slots=2_000), tmp_path / "run"))
    with pytest.raises(InputError, match="apart"):
        simulate_batch(SCENARIO, [policy, FixedCut()], seeds=[0, 0], slots=100)
    with pytest.raises(InputError, match="weights to adapt"):
        simulate(SCENARIO.replace(p95_latency_s=1.0), policy, slots=100)
    with pytest.raises(InputError, match="solve"):
        simulate(SCENARIO, policy, slots=100, solver="cvxpy")


def test_the_baselines_have_one_variant():
    with pytest.raises(InputError, match=r"algorithm: must be one of .* not 'ddpg-paper'"):
        TrainingSettings.for_algorithm("ddpg-paper")
    with pytest.raises(InputError, match="algorithm"):
        TrainingSettings.for_algorithm("sarsa")
