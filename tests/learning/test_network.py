"""The rollout buffer of the shared network: what the policy learns from, and what the value does."""

import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

import torch
from gymnasium.spaces import Box, Discrete

from splitinfer.learning.network import ConsequentialBuffer

STEPS, AGENTS = 50, 3


@pytest.fixture
def buffer():
    rng = np.random.default_rng(0)
    buffer = ConsequentialBuffer(STEPS, Box(0, 1, (2,), np.float32), Discrete(2), n_envs=AGENTS, gamma=0.9)
    buffer.reset()
    for step in range(STEPS):
        place = np.stack([np.full(AGENTS, step / STEPS), np.arange(AGENTS) / AGENTS], axis=1)
        acted = rng.random(AGENTS) < 0.2
        buffer.consequential[step] = acted
        # A task costs agent n about n, whatever was done about it.
        reward = -1.0 * acted * (np.arange(AGENTS) + 0.1 * rng.random(AGENTS))
        zeros = torch.zeros(AGENTS)
        buffer.add(place, np.zeros((AGENTS, 1)), reward, np.zeros(AGENTS), zeros, zeros)
    buffer.compute_returns_and_advantage(torch.zeros(AGENTS), np.zeros(AGENTS))
    return buffer


def test_each_action_of_consequence_is_once_in_a_pass_and_steps_of_the_value_are_all_kinds(buffer):
    acted = {(step, agent) for step, agent in zip(*np.nonzero(buffer.consequential), strict=True)}
    returns = buffer.returns.copy()
    seen, valued = [], []
    for batch in buffer.get(16):
        half = len(batch.observations) // 2
        places = batch.observations.numpy()
        where = list(
            zip(np.rint(places[:, 0] * STEPS).astype(int), np.rint(places[:, 1] * AGENTS).astype(int), strict=True)
        )
        seen += where[:half]
        valued += where[half:]
        assert torch.equal(batch.returns[:half], batch.old_values[:half])
        expected = [returns[place] for place in where[half:]]
        np.testing.assert_allclose(batch.returns[half:], expected, rtol=1e-6)
        assert not batch.advantages[half:].any()
    assert len(seen) == len(acted)
    assert set(seen) == acted
    assert set(valued) - acted


def test_what_a_task_costs_whatever_is_done_is_no_advantage(buffer):
    acted = buffer.consequential.copy()
    buffer._prepare()
    advantages = buffer.advantages.reshape(AGENTS, STEPS).T
    for agent in range(AGENTS):
        assert advantages[acted[:, agent], agent].mean() == pytest.approx(0, abs=1e-5)
    assert not advantages[~acted].any()
    assert advantages[acted].std() == pytest.approx(1, rel=1e-3)
