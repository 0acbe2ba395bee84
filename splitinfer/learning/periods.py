"""E simulated worlds, advanced one partition period at a time in one call of the compiled engine.

What ``simulate`` is to a run, this is to training: it holds no policy, and hands out the state and the reward of every
period. The Gymnasium environments and the vectorised ones are thin layers over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splitinfer.errors import InputError
from splitinfer.learning.reward import device_rewards
from splitinfer.learning.stacked import stack_settings
from splitinfer.scheduling.period import Period
from splitinfer.scheduling.policy import Request
from splitinfer.simulation.build import rule_of, setting_of
from splitinfer.simulation.engine import Engine
from splitinfer.simulation.records import FinishedTasks, PeriodStatistics
from splitinfer.simulation.scenario import Scenario
from splitinfer.simulation.surroundings import Surroundings

Floats = NDArray[np.float64]

PERIODS_AHEAD = 100
"""Gains and arrivals are drawn so many periods ahead, which costs fewer calls."""


@dataclass(frozen=True, eq=False)
class Step:
    """What one period brought.

    Attributes:
        device_reward: (E, M), each device's part of (34).
        task_s: (E, M), mean over the period's slots of the seconds that tasks spent in each device's queues, those at
            the edge included: their sum over a run is the sum of all latencies, over G.
        statistics: the engine's, the state (25) at the period's end among them.
    """

    device_reward: Floats
    task_s: Floats
    statistics: PeriodStatistics

    @property
    def reward(self) -> Floats:
        """(E,), the reward (34)."""
        return np.asarray(self.device_reward.sum(axis=1))

    @property
    def energy_j(self) -> Floats:
        """(E, M), mean energy of a slot."""
        return np.asarray(self.statistics.local_energy_j + self.statistics.transmission_energy_j)


class Periods:
    """E environments in step. They may differ in everything but the number of slots per period.

    Args:
        scenarios: one per environment.
        parallel: advance them on all of numba's threads.

    Attributes:
        settings: what is known of them beforehand.
        allocation: the name of the rule that serves their queues.

    Raises:
        InputError: no scenario; periods of different lengths; or a latency target, whose moving weights belong to
            ``simulate``.
    """

    def __init__(self, scenarios: Sequence[Scenario], *, parallel: bool = True) -> None:
        if not scenarios:
            raise InputError("scenarios: at least one is needed")
        if len({scenario.slots_per_period for scenario in scenarios}) > 1:
            raise InputError("scenarios: slots_per_period must be the same in all of them")
        for scenario in scenarios:
            if scenario.p95_latency_s is not None:
                raise InputError("p95_latency_s: training has no latency targets; leave it out of the scenario")
        self._scenarios = list(scenarios)
        self.allocation = scenarios[0].allocation
        if any(scenario.allocation != self.allocation for scenario in scenarios):
            raise InputError("scenarios: allocation must be the same in all of them")
        settings = [setting_of(scenario) for scenario in scenarios]
        self.settings = stack_settings(settings)
        self._engine = Engine(settings, allocation=rule_of(scenarios[0]), parallel=parallel)
        self._worlds: list[Surroundings] = []
        environments, devices, services = self.settings.shape
        slots = PERIODS_AHEAD * self.settings.slots_per_period
        self._gains = np.zeros((environments, slots, devices))
        self._counts = np.zeros((environments, slots, devices, services), np.int64)
        self._next = slots
        self.observation: Period = Period.empty(self.settings.num_cuts)

    def __len__(self) -> int:
        return len(self._scenarios)

    @property
    def in_flight(self) -> Floats:
        """(E, M): tasks in each device's three queues, those at the edge included."""
        return np.asarray(self._engine.in_flight.sum(axis=(1, 3)), np.float64)

    def start(self, seeds: Sequence[int], *, skip_s: Sequence[float] | None = None) -> Period:
        """Begin all environments anew, with empty queues.

        Args:
            seeds: one per environment, of its arrivals and gains.
            skip_s: let so much time of each world pass unseen first (training looks at every part of a timetable).
        """
        self._worlds = [Surroundings(scenario, seed) for scenario, seed in zip(self._scenarios, seeds, strict=True)]
        for world, scenario, seconds in zip(self._worlds, self._scenarios, skip_s or [], strict=False):
            if seconds > 0:
                world.draw(int(seconds / scenario.slot_s))
        self._next = self._gains.shape[1]
        self._engine.reset()
        self.observation = Period.empty(self.settings.num_cuts)
        return self.observation

    def empty_queues(self) -> Period:
        """Drop every task and begin another episode; the worlds themselves go on where they are."""
        self._engine.reset()
        self.observation = Period.empty(self.settings.num_cuts)
        return self.observation

    def step(self, cuts: NDArray[np.int64], request: Request | None = None) -> Step:
        """Advance all environments by one period.

        Args:
            cuts: (E, M, N), the cut with which new tasks are admitted.
            request: frequencies and powers decided elsewhere, in place of the allocation rule.

        Raises:
            InputError: ``start`` was not called, or a cut is out of range.
        """
        if not self._worlds:
            raise InputError("start must come before the first step")
        settings = self.settings
        if self._next == self._gains.shape[1]:
            self._draw()
        now = slice(self._next, self._next + settings.slots_per_period)
        self._next = now.stop
        gains, counts = self._gains[:, now], self._counts[:, now]
        before, clock = self.in_flight, self._engine.clock
        statistics = self._engine.advance(cuts, gains, counts, request=request)
        self.observation = statistics
        energy_j = statistics.local_energy_j + statistics.transmission_energy_j
        task_s = self._task_s(before, clock, counts, statistics.tasks)
        return Step(device_rewards(settings, energy_j, statistics.backlog), task_s, statistics)

    def _task_s(
        self, before: Floats, clock: NDArray[np.int64], counts: NDArray[np.int64], done: FinishedTasks
    ) -> Floats:
        """Task-seconds of a period's slots, their mean: every task from its arrival's slot to its last one's end."""
        slots = counts.shape[1]
        stay = before * slots + np.einsum("t,etmn->em", np.arange(slots, 0, -1), counts)
        left = clock[done.environment] + slots - 1 - done.finish_slot
        np.subtract.at(stay, (done.environment, done.device), left)
        return np.asarray(stay / slots * self.settings.slot_s[:, None])

    def _draw(self) -> None:
        slots = self._gains.shape[1]
        for row, (world, scenario) in enumerate(zip(self._worlds, self._scenarios, strict=True)):
            gains, counts = world.draw(slots)
            self._gains[row, :, : scenario.num_devices] = gains
            self._counts[row, :, : counts.shape[1], : counts.shape[2]] = counts
        self._next = 0
