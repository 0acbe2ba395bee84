"""Learned policies behind the ``Policy`` protocol: the same object steers the simulator and the live runtime."""

from __future__ import annotations

import numpy as np

from splitinfer.errors import InputError
from splitinfer.learning.actions import CutActions
from splitinfer.learning.outlook import FEATURES, Candidates, Outlook
from splitinfer.learning.stacked import stack_observation, stack_settings
from splitinfer.learning.state import state_size, state_vector
from splitinfer.learning.weights import Floats, Perceptron, Weights
from splitinfer.scheduling.observation import Observation, Setting
from splitinfer.scheduling.policy import Cuts

PRIOR_SHARPNESS = 20.0
"""Logits of the unlearned policy: a candidate that costs 5 % more than the cheapest is e times less likely."""

FARTHEST = 15.0
"""Those logits are cut off so far below the best: e^-15, hardly tried, but never out of reach of learning either."""

LARGEST_INPUT = 100.0


def network_input(candidates: Candidates) -> Floats:
    """Return what the shared network sees of every service, (E, M, N, C, F + 2).

    The features of each candidate, then its cost relative to the cheapest, then 1 where the candidate exists.
    """
    least = candidates.cost.min(axis=3, keepdims=True)
    valid = np.isfinite(candidates.cost)
    relative = np.zeros_like(candidates.cost)
    np.divide(candidates.cost - np.where(np.isfinite(least), least, 0), np.maximum(least, 1e-12), relative, where=valid)
    extra = np.stack([relative, valid], axis=-1).astype(np.float32)
    joined = np.concatenate([candidates.features, extra], axis=-1)
    return np.asarray(np.clip(joined, -LARGEST_INPUT, LARGEST_INPUT), np.float32)


class SharedCutPolicy:
    """LyaPPO as trained by default: one network for every service of every device, in any scenario.

    Args:
        weights: of the actor: ``actor.0``, ``actor.2``, ``actor.4``.
        name: what tables call it.

    Raises:
        InputError: the weights do not belong to this network.
    """

    def __init__(self, weights: Weights, *, name: str = "lyappo") -> None:
        self.name = name
        self._score = Perceptron(weights, ["actor.0", "actor.2", "actor.4"])
        if self._score.inputs != len(FEATURES) or self._score.outputs != 1:
            raise InputError(f"policy: the network has {self._score.inputs} inputs, this version has {len(FEATURES)}")

    def reset(self, setting: Setting, rng: np.random.Generator) -> None:
        self._outlook = Outlook(stack_settings([setting]))

    def cuts(self, observation: Observation) -> Cuts:
        seen = network_input(self._outlook.look(stack_observation(observation)))
        prior = -np.minimum(PRIOR_SHARPNESS * seen[..., -2], FARTHEST)
        logits = prior + self._score(seen[..., :-2])[..., 0]
        index = np.argmax(np.where(seen[..., -1] > 0, logits, -np.inf), axis=3)
        return np.asarray(self._outlook.cuts(index)[0])


class FlatCutPolicy:
    """The paper's network: the whole state (25) in, one choice per service out. It fits the services it learned on.

    Args:
        weights: ``layer.0``, ``layer.1``, ``layer.2``.
        cuts: the cuts it chooses from, ``"all"`` or ``"pareto"``.
        name: what tables call it.

    Raises:
        InputError: the weights do not belong to this network.
    """

    def __init__(self, weights: Weights, *, cuts: str = "all", name: str = "lyappo-paper") -> None:
        self.name = name
        self._candidates = cuts
        self._score = Perceptron(weights, ["layer.0", "layer.1", "layer.2"])

    def reset(self, setting: Setting, rng: np.random.Generator) -> None:
        self._settings = stack_settings([setting])
        self._actions = CutActions(self._settings, self._candidates)
        counts = self._actions.counts
        wanted = (state_size(self._settings), int(counts.sum()))
        if wanted != (self._score.inputs, self._score.outputs):
            raise InputError(
                f"{self.name}: trained for other services ({self._score.inputs} inputs and {self._score.outputs} cuts; "
                f"this scenario has {wanted[0]} and {wanted[1]}); train it again, or use the default variant"
            )
        self._ends = np.cumsum(counts)[:-1]

    def cuts(self, observation: Observation) -> Cuts:
        logits = self._score(state_vector(self._settings, stack_observation(observation)))[0]
        index = np.array([int(np.argmax(part)) for part in np.split(logits, self._ends)])
        return np.asarray(self._actions.decode(index[None])[0][0])
