"""A start for training: teach the shared network fixed cuts before PPO begins."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from splitinfer.learning.agents import ServiceAgents
from splitinfer.learning.network import CandidateScores

LEAST_ROUNDS = 4
MOST_ROUNDS = 12
"""Rounds end once the network's own round had no mistake: at 94 % load (``xr``) rare ones cost 10 % of latency."""

LABEL_PERIODS = 300
"""Periods of each round, in every environment."""

TEACHING_STEPS = 300
"""Gradient steps of each round."""

BATCH = 1024
LEARNING_RATE = 3e-3


def imitate(network: CandidateScores, agents: ServiceAgents, cuts: NDArray[np.int64], *, seed: int) -> float:
    """Teach the actor to choose given cuts wherever it goes (behaviour cloning with DAgger's rounds).

    In the first round the cuts themselves are in force; then the network acts, and learns what it should have done.
    Without that, rare mistakes lead to states that it never saw, and to more mistakes.

    Args:
        network: whose actor learns.
        agents: the worlds; they are begun anew.
        cuts: (M, N), Pareto cuts of every environment's services.
        seed: of the batches.

    Returns:
        Share of the last round's decisions that were the given cuts.
    """
    target = agents.index_of(cuts)
    labels = torch.from_numpy(target)
    optimiser = torch.optim.Adam(network.actor.parameters(), lr=LEARNING_RATE)
    draw = torch.Generator().manual_seed(seed)
    seen: list[torch.Tensor] = []
    right = 0.0
    for number in range(MOST_ROUNDS):
        observed = agents.reset()
        right = 0.0
        for _ in range(LABEL_PERIODS):
            seen.append(torch.from_numpy(observed))
            chosen = greedy_actions(network, observed)
            right += float(np.mean(chosen == target)) / LABEL_PERIODS
            agents.step_async(chosen if number else target)
            observed, *_ = agents.step_wait()
        if number >= LEAST_ROUNDS and right > 1 - 1e-9:
            break
        inputs = torch.cat(seen)
        for _ in range(TEACHING_STEPS):
            batch = torch.randint(len(inputs), (min(BATCH, len(inputs)),), generator=draw)
            # Rows come period after period, each with all agents in their order.
            loss = nn.functional.cross_entropy(network.forward_actor(inputs[batch]), labels[batch % len(labels)])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return right


def greedy_actions(network: CandidateScores, observed: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return every agent's most likely action."""
    with torch.no_grad():
        return np.asarray(network.forward_actor(torch.from_numpy(observed)).argmax(dim=1).numpy())
