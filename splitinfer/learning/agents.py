"""Every service of every device as one agent of a shared policy: the ``VecEnv`` that the default LyaPPO trains in.

To Stable-Baselines3 each (environment, device, service) is one environment. All share one network, an agent's reward is
its own device's part of (34), and its action is an index into its candidate cuts. So the credit for a cut is not hidden
in the sum over all devices, and what is learned does not depend on M, N or the models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from splitinfer.errors import InputError
from splitinfer.learning.outlook import FEATURES, Candidates, Outlook
from splitinfer.learning.periods import Periods
from splitinfer.learning.policies import LARGEST_INPUT, network_input
from splitinfer.learning.reward import priced_rewards
from splitinfer.learning.stacked import emphasised
from splitinfer.learning.vector import SteppedVecEnv, timetable_offsets_s
from splitinfer.scheduling.rules import PriceOfTime
from splitinfer.simulation.scenario import Scenario


class ServiceAgents(SteppedVecEnv):
    """All services of E environments, which may differ in everything.

    The reward of (34) has no latency in it, only queues in cycles and bits, in which a small task weighs nothing. So
    training adds the number of tasks in the device times ``task_price``; by Little's law that is latency. Rewards are
    centred and scaled per device by what the unlearned policy gets in ``calibration_periods``. ``energy_emphasis``
    multiplies w1 in what is learned and in the expected cost; the reward that is reported stays (34).

    Under the allocation ``price`` the reward has latency in it, at w joules a second (``priced_rewards``), and neither
    of the two is used.

    Observation: (C, F + 2), the features of each candidate, its cost relative to the cheapest, and whether it exists.

    Args:
        scenarios: one per environment.
        seed: the environments run on ``seed``, ``seed + 1`` and so on.
        periods_per_episode: steps of an episode; queues are emptied after it.
        task_price: reward lost per task in the device and period.
        energy_emphasis: factor on w1.
        calibration_periods: length of the trial run that the scale comes from.

    Attributes:
        slots_per_period: G.
        arrived: (agents,), whether a task arrived in the last period: whether the last action was of any consequence.
        energy_j: mean energy per device and slot of the last period, over all environments.
        mean_reward: (34) of the last period, mean over the environments.
        latency_s: latencies of the tasks finished in the last period.
    """

    def __init__(
        self,
        scenarios: Sequence[Scenario],
        *,
        seed: int = 0,
        periods_per_episode: int = 200,
        task_price: float = 0.1,
        energy_emphasis: float = 1.0,
        calibration_periods: int = 200,
    ) -> None:
        self._scenarios = list(scenarios)
        self._periods = Periods(scenarios, parallel=False)
        self.slots_per_period = self._periods.settings.slots_per_period
        self._priced = self._periods.allocation == PriceOfTime.name
        seen = self._periods.settings if self._priced else emphasised(self._periods.settings, energy_emphasis)
        self._outlook = Outlook(seen, task_price=task_price, allocation=self._periods.allocation)
        self._existing: NDArray[np.bool_] = self._periods.settings.active
        self._device_exists = self._existing.any(axis=2)
        self._seed = seed
        self._length = periods_per_episode
        self._task_price = task_price
        self._more_energy_price = (energy_emphasis - 1) * self._periods.settings.reward_energy_weight[:, None]
        self._step = 0
        agents = int(self._existing.sum())
        self.arrived = np.zeros(agents, np.bool_)
        self.energy_j = 0.0
        self.mean_reward = 0.0
        self.latency_s = np.zeros(0)
        self._scale = (0.0, np.ones(self._device_exists.shape))
        self._returns = np.zeros(agents)
        self.render_mode = None
        shape = (self._outlook.width, len(FEATURES) + 2)
        space = Box(-LARGEST_INPUT, LARGEST_INPUT, shape, np.float32)
        super().__init__(agents, space, Discrete(self._outlook.width))
        self._calibrate(calibration_periods)

    def reset(self) -> NDArray[np.float32]:
        self._begin()
        return self._observed(self._outlook.look(self._periods.observation))

    def index_of(self, cuts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the actions (agents,) that choose these cuts, (M, N), in every environment; all must be candidates."""
        same = (self._outlook.choices == np.asarray(cuts)[None, ..., None]) & self._outlook.valid
        if not same.any(axis=3)[self._existing].all():
            raise InputError("cuts: a service has no such candidate")
        return np.asarray(np.argmax(same, axis=3)[self._existing])

    def score(self, choose: Callable[[NDArray[np.float32]], NDArray[np.int64]], periods: int) -> float:
        """Return the mean scaled reward of a rule on these worlds from their beginning; 0 is the unlearned policy's.

        Args:
            choose: from what the agents observe to their actions.
            periods: length of the trial.
        """
        observed = self.reset()
        total = 0.0
        for _ in range(periods):
            self.step_async(choose(observed))
            observed, rewards, _, _ = self.step_wait()
            total += float(rewards.mean())
        return total / periods

    def step_wait(
        self,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        index = np.zeros(self._existing.shape, np.int64)
        index[self._existing] = self._actions
        mean, deviation = self._scale
        device_reward = (self._advance(index) - mean) / deviation
        rewards = np.broadcast_to(device_reward[..., None], index.shape)[self._existing].astype(np.float32)
        self._step += 1
        self._returns += rewards
        observed = self._observed(self._outlook.look(self._periods.observation))
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        done = self._step >= self._length
        if done:
            for row, info in enumerate(infos):
                info["terminal_observation"] = observed[row]
                info["TimeLimit.truncated"] = True
                info["episode"] = {"r": float(self._returns[row]), "l": self._step}
            observed = self._observed(self._outlook.look(self._periods.empty_queues()))
            self._step = 0
            self._returns[:] = 0
        return observed, rewards, np.full(self.num_envs, done), infos

    def _begin(self) -> None:
        seeds = [self._seed + row for row in range(len(self._scenarios))]
        self._periods.start(seeds, skip_s=timetable_offsets_s(self._scenarios))
        self._outlook.reset()
        self._step = 0
        self._returns[:] = 0

    def _advance(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """Run one period at these candidates; returns each device's reward, (E, M)."""
        period = self._periods.step(self._outlook.cuts(index))
        self.arrived = period.statistics.arrived[self._existing] > 0
        self.energy_j = float(period.energy_j[self._device_exists].mean())
        self.mean_reward = float(period.reward.mean())
        self.latency_s = period.statistics.tasks.latency_s
        if self._priced:
            return priced_rewards(self._periods.settings, period.energy_j, period.task_s)
        more = self._more_energy_price * period.energy_j
        return np.asarray(period.device_reward - more - self._task_price * self._periods.in_flight)

    def _calibrate(self, periods: int) -> None:
        self._begin()
        rewards = []
        for _ in range(periods):
            cost = self._outlook.look(self._periods.observation).cost
            rewards.append(self._advance(np.argmin(cost, axis=3)))
        deviation = np.std(rewards, axis=0)
        self._scale = (np.mean(rewards, axis=0), np.where(deviation > 1e-9, deviation, 1.0))

    def _observed(self, candidates: Candidates) -> NDArray[np.float32]:
        return network_input(candidates)[self._existing]
