"""The MDP of the upper level as Gymnasium environments."""

from __future__ import annotations

from typing import Any, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray

from splitinfer.errors import InputError
from splitinfer.learning.actions import ActionLayout, CutActions, JointActions, RoundedCutActions
from splitinfer.learning.periods import Periods
from splitinfer.learning.state import state_space, state_vector
from splitinfer.simulation.scenario import Scenario
from splitinfer.simulation.scenario_file import find_scenario

PERIODS_PER_EPISODE = 200
"""The paper's episode."""

State = NDArray[np.float32]


class _PeriodEnv(gymnasium.Env[State, NDArray[Any]]):
    """One scenario; a step is one partition period of G slots."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own attribute

    def __init__(self, scenario: Scenario | str, periods_per_episode: int) -> None:
        world = find_scenario(scenario) if isinstance(scenario, str) else scenario
        if not isinstance(world, Scenario):
            raise InputError(f"scenario: must be a Scenario, a preset's name or a TOML file, not {world!r}")
        if periods_per_episode < 1:
            raise InputError(f"periods_per_episode: must be at least 1, not {periods_per_episode}")
        self.scenario = world
        self._periods = Periods([world], parallel=False)
        self._length = periods_per_episode
        self._step = 0
        self.observation_space = state_space(self._periods.settings)

    def _use(self, layout: ActionLayout) -> None:
        self._layout = layout
        self.action_space = layout.space()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[State, dict[str, Any]]:
        super().reset(seed=seed)
        world_seed = int(self.np_random.integers(2**31)) if seed is None else seed
        self._step = 0
        observation = self._periods.start([world_seed])
        return state_vector(self._periods.settings, observation)[0], {"world_seed": world_seed}

    def step(self, action: NDArray[Any]) -> tuple[State, float, bool, bool, dict[str, Any]]:
        values = np.asarray(action)
        space: Any = self.action_space
        if values.shape != space.shape:
            raise InputError(f"action: must have shape {space.shape}, not {values.shape}")
        if hasattr(space, "nvec") and (np.any(values < 0) or np.any(values >= space.nvec)):
            raise InputError(f"action: each must be 0 or more and below {space.nvec.tolist()}, not {values.tolist()}")
        cuts, request = self._layout.decode(values[None])
        period = self._periods.step(cuts, request)
        self._step += 1
        statistics = period.statistics
        info = {
            "cuts": cuts[0],
            "device_reward": period.device_reward[0],
            "energy_local_j": statistics.local_energy_j[0],
            "energy_transmission_j": statistics.transmission_energy_j[0],
            "mean_backlog": statistics.backlog[0],
            "latency_s": statistics.tasks.latency_s,
            "arrived": int(statistics.arrived.sum()),
        }
        state = state_vector(self._periods.settings, period.statistics)[0]
        return state, float(period.reward[0]), False, self._step >= self._length, info


class PartitionEnv(_PeriodEnv):
    """``splitinfer/Partition-v0``: choose the cuts of a period; a rule allocates frequency and power in every slot.

    Action: with ``actions="index"`` a ``MultiDiscrete``, per existing service in the order of (m, n) the index of its
    cut among the candidates (with ``cuts="all"`` the cut itself, 0..K); with ``actions="rounded"`` a ``Box`` of numbers
    in [-1, 1] that are rounded to a candidate.

    Observation: the state (25), a ``Box`` of float32, at least 0 and of order one; indices and scales are in
    ``splitinfer.learning.state``.

    Reward: (34), ``-sum_m [w1 (E^l + E^t) + w2 Qbar]``, energies in J and queues averaged over the period's slots, with
    the scenario's ``reward_energy_weight``, ``reward_queue_weight``, ``queue_weights`` and scales.

    Start: empty queues. End: never terminates; truncated after ``periods_per_episode`` steps. ``info`` has the cuts,
    the terms of the reward per device (J, cycles and bits), and the latencies of the tasks finished in the period.

    Args:
        scenario: the world, or a preset's name.
        periods_per_episode: steps until truncation.
        cuts: ``"all"``, or ``"pareto"`` for those that no other cut beats in both work and bits.
        actions: ``"index"`` or ``"rounded"``.

    Raises:
        InputError: an argument is wrong.
    """

    def __init__(
        self,
        scenario: Scenario | str = "table2",
        *,
        periods_per_episode: int = PERIODS_PER_EPISODE,
        cuts: Literal["all", "pareto"] = "all",
        actions: Literal["index", "rounded"] = "index",
    ) -> None:
        super().__init__(scenario, periods_per_episode)
        _check("cuts", cuts, ("all", "pareto"))
        _check("actions", actions, ("index", "rounded"))
        settings = self._periods.settings
        self._use(CutActions(settings, cuts) if actions == "index" else RoundedCutActions(settings, cuts))


class JointEnv(_PeriodEnv):
    """``splitinfer/Joint-v0``: choose cuts and resources of a period together; no rule allocates.

    Action: ``Box`` in [-1, 1]; all services' cuts (rounded), then all shares of F^l, all shares of the rate, all shares
    of F^e, then every device's share of p_max. Held for the whole period; the engine keeps limits and queues.
    Observation, reward and ends are those of ``splitinfer/Partition-v0``.

    Args:
        scenario: the world, or a preset's name.
        periods_per_episode: steps until truncation.
        cuts: ``"all"`` or ``"pareto"``.

    Raises:
        InputError: an argument is wrong.
    """

    def __init__(
        self,
        scenario: Scenario | str = "table2",
        *,
        periods_per_episode: int = PERIODS_PER_EPISODE,
        cuts: Literal["all", "pareto"] = "all",
    ) -> None:
        super().__init__(scenario, periods_per_episode)
        _check("cuts", cuts, ("all", "pareto"))
        self._use(JointActions(self._periods.settings, cuts))


def _check(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"{name}: must be one of {', '.join(known)}, not {value!r}")
