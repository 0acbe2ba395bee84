"""E environments as one Stable-Baselines3 ``VecEnv``: a step of all of them is one call of the compiled engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from splitinfer.errors import InputError
from splitinfer.learning.actions import ActionLayout
from splitinfer.learning.environments import PERIODS_PER_EPISODE
from splitinfer.learning.periods import Periods
from splitinfer.learning.stacked import StackedSettings
from splitinfer.learning.state import state_space, state_vector
from splitinfer.simulation.scenario import Scenario


class SteppedVecEnv(VecEnv):
    """A ``VecEnv`` that lives in this process and whose members step together."""

    _actions: NDArray[Any]

    def step_async(self, actions: NDArray[Any]) -> None:
        self._actions = actions

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        return [getattr(self, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        raise InputError(f"{attr_name}: environments that step together have no attributes of their own")

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        raise InputError(f"{method_name}: environments that step together have no methods of their own")

    def env_is_wrapped(self, wrapper_class: Any, indices: VecEnvIndices = None) -> list[bool]:
        return [False] * len(list(self._get_indices(indices)))


class PeriodVecEnv(SteppedVecEnv):
    """Many environments with the same services, each on its own seed: observations, rewards and ends as
    ``PartitionEnv`` or, with joint actions, ``JointEnv``.

    An episode ends after ``periods_per_episode`` steps with all queues emptied, in all environments at once. The worlds
    go on where they are, so that training passes through the whole timetable of a scenario that drifts.

    Args:
        scenarios: one per environment; they may differ in everything but their services.
        layout: makes the action layout.
        seed: the environments run on ``seed``, ``seed + 1`` and so on.
        periods_per_episode: steps of an episode.

    Attributes:
        slots_per_period: G.
        energy_j: mean energy per device and slot of the last period, over all environments.
        mean_reward: (34) of the last period, mean over the environments.
        latency_s: latencies of the tasks finished in the last period.

    Raises:
        InputError: the services differ.
    """

    def __init__(
        self,
        scenarios: Sequence[Scenario],
        layout: Callable[[StackedSettings], ActionLayout],
        *,
        seed: int = 0,
        periods_per_episode: int = PERIODS_PER_EPISODE,
    ) -> None:
        self._periods = Periods(scenarios, parallel=False)
        self.slots_per_period = self._periods.settings.slots_per_period
        settings = self._periods.settings
        if np.any(settings.active != settings.active[:1]) or np.any(settings.num_cuts != settings.num_cuts[:1]):
            raise InputError("scenarios: environments of a flat policy must have the same services")
        self._layout = layout(settings)
        self._scenarios = list(scenarios)
        self._world_seed = seed
        self._length = periods_per_episode
        self._step = 0
        self._returns = np.zeros(len(scenarios))
        self.energy_j = 0.0
        self.mean_reward = 0.0
        self.latency_s = np.zeros(0)
        self.render_mode = None
        super().__init__(len(scenarios), state_space(settings), self._layout.space())

    def reset(self) -> NDArray[np.float32]:
        seeds = [self._world_seed + row for row in range(self.num_envs)]
        observation = self._periods.start(seeds, skip_s=timetable_offsets_s(self._scenarios))
        self._step = 0
        self._returns[:] = 0
        return state_vector(self._periods.settings, observation)

    def step_wait(self) -> VecEnvStepReturn:
        cuts, request = self._layout.decode(self._actions)
        period = self._periods.step(cuts, request)
        self._step += 1
        self._returns += period.reward
        self.energy_j = float(period.energy_j.mean())
        self.mean_reward = float(period.reward.mean())
        self.latency_s = period.statistics.tasks.latency_s
        states = state_vector(self._periods.settings, period.statistics)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        done = self._step >= self._length
        if done:
            for row, info in enumerate(infos):
                info["terminal_observation"] = states[row]
                info["TimeLimit.truncated"] = True
                info["episode"] = {"r": float(self._returns[row]), "l": self._step}
            states = state_vector(self._periods.settings, self._periods.empty_queues())
            self._step = 0
            self._returns[:] = 0
        return states, period.reward.astype(np.float32), np.full(self.num_envs, done), infos


def timetable_offsets_s(scenarios: Sequence[Scenario]) -> list[float]:
    """Return where in its timetable each environment starts: evenly over the cycle of a scenario that drifts."""
    count = len(scenarios)
    return [
        0.0 if scenario.drift is None or scenario.drift.cycle_s is None else scenario.drift.cycle_s * row / count
        for row, scenario in enumerate(scenarios)
    ]
