import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import splitinfer.learning  # noqa: F401 - registers the environments
from splitinfer.errors import InputError
from splitinfer.scheduling import FixedCut
from splitinfer.simulation import simulate
from tests.simulation.small import small_scenario

CHECKED = [
    ("splitinfer/Partition-v0", {}),
    ("splitinfer/Partition-v0", {"cuts": "pareto"}),
    ("splitinfer/Partition-v0", {"actions": "rounded"}),
    ("splitinfer/Joint-v0", {}),
]


@pytest.mark.parametrize(("name", "settings"), CHECKED)
def test_gymnasium_finds_nothing_to_complain_about(name, settings):
    environment = gymnasium.make(name, scenario=small_scenario(), **settings)
    check_env(environment.unwrapped, skip_render_check=True)


def test_a_preset_may_be_named():
    environment = gymnasium.make("splitinfer/Partition-v0", scenario="table2")
    assert environment.action_space.nvec.tolist() == [55, 54] * 4
    assert environment.observation_space.shape == (8 * 9 + 4 * 2,)


def test_an_episode_is_truncated_and_never_terminated():
    environment = gymnasium.make("splitinfer/Partition-v0", scenario=small_scenario(), periods_per_episode=3)
    environment.reset(seed=1)
    ends = [environment.step(environment.action_space.sample())[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


def test_reward_is_34_to_36_by_hand():
    scenario = small_scenario(
        arrival_rate_hz=5.0, reward_energy_weight=700.0, reward_queue_weight=3.0, queue_weights=(0.5, 0.3, 0.2)
    )
    environment = gymnasium.make("splitinfer/Partition-v0", scenario=scenario)
    environment.reset(seed=0)
    for _ in range(20):
        *_, info = environment.step(np.array([1, 0, 2, 1]))
        reward = _reward_of(info)
    assert info["energy_transmission_j"].max() > 0
    assert info["mean_backlog"].max() > 0
    assert reward == pytest.approx(-700.0 * _energy(info) - 3.0 * _scaled_queue(info))


def _reward_of(info):
    return info["device_reward"].sum()


def _energy(info):
    return (info["energy_local_j"] + info["energy_transmission_j"]).sum()


def _scaled_queue(info):
    local, bits, edge = info["mean_backlog"]
    return (0.5 * local / 1e9 + 0.3 * bits / 1e6 + 0.2 * edge / 1e9).sum()


def test_the_world_is_the_one_that_simulate_runs_in():
    scenario = small_scenario(arrival_rate_hz=3.0)
    cuts = [1, 1]
    environment = gymnasium.make("splitinfer/Partition-v0", scenario=scenario, periods_per_episode=150)
    environment.reset(seed=9)
    infos = [environment.step(np.array(cuts * 2))[4] for _ in range(150)]
    result = simulate(scenario, FixedCut(cuts), slots=1500, seed=9)
    assert np.mean([_energy(info) / 2 for info in infos]) == pytest.approx(result.energy_j)
    assert np.concatenate([info["latency_s"] for info in infos]) == pytest.approx(result.latency_s)


def test_state_stays_of_order_one_under_hopeless_load():
    scenario = small_scenario(arrival_rate_hz=100.0)
    environment = gymnasium.make("splitinfer/Partition-v0", scenario=scenario)
    state, _ = environment.reset(seed=0)
    for _ in range(200):
        state, *_ = environment.step(environment.action_space.sample())
    assert state.min() >= 0
    assert state.max() < 15


def test_state_does_not_depend_on_the_size_of_numbers():
    """The same world in other units of work: cycles and capacities doubled."""
    one = small_scenario(local_energy_weight=0.0)
    two = one.replace(
        cycles_per_mac=2 * one.cycles_per_mac,
        max_local_frequency_hz=2 * one.max_local_frequency_hz,
        max_edge_frequency_hz=2 * one.max_edge_frequency_hz,
    )
    states = []
    for scenario in (one, two):
        environment = gymnasium.make("splitinfer/Partition-v0", scenario=scenario)
        environment.reset(seed=4)
        states.append([environment.step(np.array([1, 1, 2, 0]))[0] for _ in range(30)])
    np.testing.assert_allclose(states[0], states[1], rtol=1e-5)


def test_joint_actions_set_power_and_frequency():
    environment = gymnasium.make("splitinfer/Joint-v0", scenario=small_scenario(arrival_rate_hz=5.0))
    environment.reset(seed=0)
    size = environment.action_space.shape[0]
    idle = -np.ones(size, np.float32)
    for _ in range(30):
        *_, info = environment.step(idle)
    assert _energy(info) == 0
    assert info["mean_backlog"].sum() > 0
    flat_out = np.ones(size, np.float32)
    flat_out[:4] = -1  # cut 0: everything is sent
    spent = sum(_energy(environment.step(flat_out)[4]) for _ in range(30))
    assert spent > 0


@pytest.mark.parametrize("wrong", [{"cuts": "some"}, {"actions": "loud"}, {"periods_per_episode": 0}])
def test_wrong_settings_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        gymnasium.make("splitinfer/Partition-v0", scenario=small_scenario(), **wrong)


def test_latency_targets_are_refused():
    with pytest.raises(InputError, match="p95_latency_s"):
        gymnasium.make("splitinfer/Partition-v0", scenario=small_scenario(p95_latency_s=1.0))
