import gymnasium
import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

import splitinfer.learning  # noqa: F401 - registers the environments
from splitinfer.errors import InputError
from splitinfer.learning.actions import CutActions
from splitinfer.learning.vector import PeriodVecEnv
from tests.simulation.small import BIG, small_scenario


def test_every_member_is_the_single_environment_of_its_seed():
    scenario = small_scenario(arrival_rate_hz=4.0)
    many = PeriodVecEnv([scenario] * 3, CutActions, seed=5, periods_per_episode=1000)
    singles = [gymnasium.make("splitinfer/Partition-v0", scenario=scenario) for _ in range(3)]
    states = many.reset()
    for row, single in enumerate(singles):
        np.testing.assert_array_equal(single.reset(seed=5 + row)[0], states[row])
    rng = np.random.default_rng(0)
    for _ in range(50):
        actions = rng.integers(0, singles[0].action_space.nvec, size=(3, 4))
        states, rewards, _, _ = many.step(actions)
        for row, single in enumerate(singles):
            state, reward, *_ = single.step(actions[row])
            np.testing.assert_array_equal(state, states[row])
            assert reward == pytest.approx(rewards[row], rel=1e-6)


def test_the_end_of_an_episode_empties_the_queues_and_keeps_the_last_state():
    many = PeriodVecEnv([small_scenario(arrival_rate_hz=50.0)] * 2, CutActions, periods_per_episode=4)
    many.reset()
    actions = np.zeros((2, 4), np.int64)
    for _ in range(3):
        states, _, dones, infos = many.step(actions)
        assert not dones.any()
    states, _, dones, infos = many.step(actions)
    assert dones.all()
    assert all(info["TimeLimit.truncated"] for info in infos)
    queues = [0, 1, 2]
    assert states[0][queues].max() == 0
    assert infos[0]["terminal_observation"][queues].max() > 0


def test_other_services_need_another_policy():
    with pytest.raises(InputError, match="same services"):
        PeriodVecEnv([small_scenario(), small_scenario(services=(BIG, BIG))], CutActions)
