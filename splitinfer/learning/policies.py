"""Learned policies behind the ``Policy`` protocol: the same object steers the simulator and the live runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitinfer.errors import InputError
from splitinfer.learning.actions import CutActions, JointActions, RoundedCutActions, services_digest
from splitinfer.learning.outlook import FEATURES, PAPERS, Candidates, Outlook
from splitinfer.learning.stacked import StackedSettings, emphasised, stack_settings
from splitinfer.learning.state import state_size, state_vector
from splitinfer.learning.weights import Floats, Perceptron, Weights
from splitinfer.scheduling.observation import Observation, Setting
from splitinfer.scheduling.policy import Cuts, Request
from splitinfer.scheduling.rules import PriceOfTime

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
        energy_emphasis: factor on w1 that it was trained with.
        task_price: price of a task per period that it was trained with.
        allocation: the rule under which it was trained, which says what it sees of a candidate's cost.
        name: what tables call it.

    Raises:
        InputError: the weights do not belong to this network.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        energy_emphasis: float = 1.0,
        task_price: float = 0.0,
        allocation: str = PAPERS,
        name: str = "lyappo",
    ) -> None:
        self.name = name
        self._task_price = task_price
        self._allocation = allocation
        self._energy_emphasis = 1.0 if allocation == PriceOfTime.name else energy_emphasis
        self._score = Perceptron(weights, ["actor.0", "actor.2", "actor.4"])
        if self._score.inputs != len(FEATURES) or self._score.outputs != 1:
            raise InputError(f"policy: the network has {self._score.inputs} inputs, this version has {len(FEATURES)}")

    def reset(self, setting: Setting, rng: np.random.Generator) -> None:
        settings = emphasised(stack_settings([setting]), self._energy_emphasis)
        self._outlook = Outlook(settings, task_price=self._task_price, allocation=self._allocation)

    def cuts(self, observation: Observation) -> Cuts:
        seen = network_input(self._outlook.look(observation.period.stacked()))
        prior = -np.minimum(PRIOR_SHARPNESS * seen[..., -2], FARTHEST)
        logits = prior + self._score(seen[..., :-2])[..., 0]
        index = np.argmax(np.where(seen[..., -1] > 0, logits, -np.inf), axis=3)
        return np.asarray(self._outlook.cuts(index)[0])


class FlatCutPolicy:
    """A network over the whole state (25), and a choice per service out of it. It fits the services it learned on.

    Args:
        weights: ``layer.0``, ``layer.1``, ``layer.2``.
        layout: what its outputs mean: ``"index"``, logits of each service's cuts (the paper's LyaPPO); ``"rounded"``,
            one number per service, rounded to a cut (DDPG-Cov).
        cuts: the cuts it chooses from, ``"all"`` or ``"pareto"``.
        services: digest of the services that it learned on (``services_digest``); None where nobody kept it.
        name: what tables call it.

    Raises:
        InputError: the weights do not belong to this network.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        layout: str = "index",
        cuts: str = "all",
        services: str | None = None,
        name: str = "lyappo-paper",
    ) -> None:
        self.name = name
        self._services = services
        self._candidates = cuts
        self._layout = layout
        self._network = _flat_network(weights, "relu" if layout == "rounded" else "tanh")

    def reset(self, setting: Setting, rng: np.random.Generator) -> None:
        self._settings = stack_settings([setting])
        if self._layout == "index":
            indices = CutActions(self._settings, self._candidates)
            self._decode, self._ends = indices.decode, np.cumsum(indices.counts)[:-1]
            outputs = int(indices.counts.sum())
        else:
            rounded = RoundedCutActions(self._settings, self._candidates)
            self._decode, outputs = rounded.decode, rounded.size
        _check_fit(self.name, self._network, self._settings, outputs, self._services)

    def cuts(self, observation: Observation) -> Cuts:
        out = self._network(state_vector(self._settings, observation.period.stacked()))
        if self._layout == "index":
            action: NDArray[Any] = np.array([[int(np.argmax(part)) for part in np.split(out[0], self._ends)]])
        else:
            action = np.tanh(out)
        return np.asarray(self._decode(action)[0][0])


class JointPolicy:
    """The PPO baseline: cuts and resources out of one network over the whole state. It fits the services it learned on.

    Args:
        weights: ``layer.0``, ``layer.1``, ``layer.2``.
        cuts: the cuts it chooses from, ``"all"`` or ``"pareto"``.
        services: digest of the services that it learned on (``services_digest``); None where nobody kept it.
        name: what tables call it.

    Raises:
        InputError: the weights do not belong to this network.
    """

    sets_resources = True

    def __init__(self, weights: Weights, *, cuts: str = "all", services: str | None = None, name: str = "ppo") -> None:
        self.name = name
        self._services = services
        self._candidates = cuts
        self._network = _flat_network(weights, "tanh")
        self._request: Request | None = None

    def reset(self, setting: Setting, rng: np.random.Generator) -> None:
        self._settings = stack_settings([setting])
        self._actions = JointActions(self._settings, self._candidates)
        _check_fit(self.name, self._network, self._settings, self._actions.size, self._services)

    def cuts(self, observation: Observation) -> Cuts:
        action = self._network(state_vector(self._settings, observation.period.stacked()))
        cuts, self._request = self._actions.decode(np.clip(action, -1.0, 1.0))
        return np.asarray(cuts[0])

    def resources(self) -> Request:
        asked = self._request
        assert asked is not None, "cuts come first"
        return Request(
            local_frequency_hz=np.asarray(asked.local_frequency_hz)[0],
            power_w=np.asarray(asked.power_w)[0],
            rate_share=np.asarray(asked.rate_share)[0],
            edge_frequency_hz=np.asarray(asked.edge_frequency_hz)[0],
        )


def _flat_network(weights: Weights, activation: str) -> Perceptron:
    return Perceptron(weights, ["layer.0", "layer.1", "layer.2"], activation=activation)


def _check_fit(name: str, network: Perceptron, settings: StackedSettings, outputs: int, services: str | None) -> None:
    wanted = (state_size(settings), outputs)
    if wanted != (network.inputs, network.outputs):
        raise InputError(
            f"{name}: trained for other services ({network.inputs} inputs and {network.outputs} outputs; this scenario "
            f"has {wanted[0]} and {wanted[1]}); train it again, or use LyaPPO's default variant"
        )
    if services is not None and services != services_digest(settings):  # layer sizes agree by chance
        raise InputError(
            f"{name}: trained for other services (as many cuts, but not the same ones: models, their order, codecs and "
            "the kind of cuts must be those of the training); train it again, or use LyaPPO's default variant"
        )
