"""What a coming task would cost at each candidate cut: the input of the network that services share.

A network for all services, devices and models cannot take cut numbers and cycles as input. It is shown, for every
candidate cut of a service, what that cut would mean now: seconds of work for each station, joules, and what they cost
in the unit of the reward (34). All numbers are of order one in any world.

The cost. A task that comes to a queue adds H to the integral of that queue over time, if nothing follows it: at a
constant rate f, x units of work behind q others add ``x (q + x/2) / f``. With the prices of (34),

    cost_k = w1 E_k / G + w2 / (G tau) · sum over stations  price_s · H_s

is then exactly the reward that the task takes away from the periods to come: w1 E / G because (35) averages energies
over G slots. Where others follow, they wait behind the task too; with a share u of the station in use, the added
waiting lasts 1/(1 - u) times as long. A device that runs slower than it could also has to hurry for those who follow,
which costs it energy (``local_followers_j``). That is the ``cost`` that candidates are compared by before anything is
learned; the network learns what it leaves out (other services' reactions, channels that move, the shared edge).

Training may price a task's presence too (``task_price`` per task and period, see ``ServiceAgents``); then the time that
the task itself spends at each station is added at that price.

E and H follow from the exact allocation (:mod:`splitinfer.scheduling.draining`); the link's rate is that of the
backlog which the task finds on average.

Under the allocation ``price`` the cost is the one by which the policy ``price`` chooses, ``w1 / G`` times joules:
cycles and bits at their prices with one task more than wait now, and w for the seconds that it costs at the edge
(:mod:`splitinfer.scheduling.task_prices`). Then the unlearned policy is the price rule itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splitinfer.learning.actions import candidate_cuts
from splitinfer.learning.stacked import StackedSettings
from splitinfer.scheduling.draining import (
    link_added_j,
    link_rate_bps,
    local_added_j,
    local_backlog_cycle_s,
    local_drain_s,
    local_followers_j,
)
from splitinfer.scheduling.period import Period
from splitinfer.scheduling.rules import DriftPlusPenalty, PriceOfTime
from splitinfer.scheduling.task_prices import LOAD_SMOOTHING, TaskPrices, WaitingTasks, patience

PAPERS = DriftPlusPenalty.name
"""The allocation where nothing else is said."""

Floats = NDArray[np.float64]

FEATURES = (
    "local share c",
    "log bits ratio d",
    "local seconds",
    "link seconds",
    "edge seconds",
    "waiting locally",
    "waiting at the link",
    "waiting at the edge",
    "local energy",
    "link energy",
    "local load",
    "link load",
    "edge load",
    "channel now over its mean",
    "in force",
    "cost",
)
"""Order of the features. Times are ``log(1 + s / period)``, energies ``log(1 + w1 E / G)``, cost likewise."""

CHANNEL_SMOOTHING = 0.1
"""Share of the newest period in the mean of R: about a second of memory, as Myopic has."""

FIRST_GUESS_BITS_PER_S_PER_HZ = 8.0
"""R over b before anything was observed."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """What the candidates of every service look like now.

    Attributes:
        features: (E, M, N, C, F), in the order of ``FEATURES``; 0 where there is no candidate.
        cost: (E, M, N, C), the reward that one task would take away at each candidate; infinite where there is none.
    """

    features: NDArray[np.float32]
    cost: Floats


class Outlook:
    """Follows E environments and shows each period what every candidate cut of every service would cost.

    Args:
        settings: of the environments; they may differ in everything.
        task_price: reward lost per task in the device and period; adds the task's own time to its cost. Without meaning
            under ``price``, which has a price of its own.
        allocation: the rule that serves the queues; any but ``price`` is taken for drift-plus-penalty.
        width: C, the number of candidates to pad to; by default the most that any service has.
    """

    def __init__(
        self,
        settings: StackedSettings,
        *,
        task_price: float = 0.0,
        allocation: str = PAPERS,
        width: int | None = None,
    ) -> None:
        self.settings = settings
        self._task_price = task_price
        self._priced = allocation == PriceOfTime.name
        environments, devices, services = settings.shape
        tables = [candidate_cuts(settings, "pareto", row) for row in range(environments)]
        most = max(len(cuts) for table in tables for device in table for cuts in device)
        self.width = most if width is None else width
        self.choices = np.zeros((environments, devices, services, self.width), np.int64)
        self.valid = np.zeros((environments, devices, services, self.width), np.bool_)
        for row, table in enumerate(tables):
            for device, own in enumerate(table):
                for service, cuts in zip(np.flatnonzero(settings.active[row, device]), own, strict=True):
                    self.choices[row, device, service, : len(cuts)] = cuts
                    self.choices[row, device, service, len(cuts) :] = cuts[-1]
                    self.valid[row, device, service, : len(cuts)] = True
        at = self.choices[:, None]
        self._work = np.take_along_axis(settings.work, at, axis=4)
        whole = np.maximum(settings.work[:, 2, :, :, 0], 1e-300)[..., None]
        size = np.maximum(settings.work[:, 1, :, :, 0], 1e-300)[..., None]
        self._share = self._work[:, 0] / whole
        self._ratio = np.log1p(np.minimum(self._work[:, 1] / size, 1e3))
        self.reset()

    def reset(self) -> None:
        """Forget what was observed."""
        environments, devices, _ = self.settings.shape
        self._mean_rate: Floats | None = None
        self._load = np.zeros((environments, 3, devices))
        self._prices = TaskPrices(self.settings) if self._priced else None
        self._line = WaitingTasks()

    def cuts(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the cuts (E, M, N) of candidate indices (E, M, N)."""
        chosen = np.take_along_axis(self.choices, index[..., None], axis=3)[..., 0]
        return np.where(self.settings.active, chosen, 0)

    def look(self, observation: Period) -> Candidates:
        """Take in the period that has passed, and return the view of the coming one."""
        settings = self.settings
        rate = self._follow(observation)
        waiting = self._waiting(observation)
        edge_hz = settings.max_edge_frequency_hz[:, None, None, None]
        edge_s = self._work[:, 2] / edge_hz
        edge_wait_s = waiting[:, 2].sum(axis=1)[:, None, None, None] / edge_hz
        period_s = (settings.slot_s * settings.slots_per_period)[:, None, None, None]
        energy_price = settings.reward_energy_weight[:, None, None, None] / settings.slots_per_period
        load = self._load[..., None, None]
        if self._prices is not None:
            tasks = self._tasks(observation) + 1
            local_s, local_j, local_wait_s, link_s, link_j, link_wait_s, joules = self._priced_work(
                self._prices, observation, waiting, tasks
            )
            wage_w = (tasks[2] * patience(self._load[:, 2]) * settings.latency_price_w)[..., None, None]
            cost = energy_price * (joules + wage_w * edge_s)
        else:
            local_s, local_j, local_wait_s, local_held = self._local(waiting[:, 0])
            link_s, link_j, link_wait_s, link_held = self._link(waiting[:, 1], rate)
            edge_held = edge_s * (edge_wait_s + edge_s / 2) * edge_hz
            longer = patience(load)
            price = settings.queue_price * settings.reward_queue_weight[:, None]
            cost = energy_price * (local_j + link_j)
            for stage, (held, own_s) in enumerate(((local_held, local_s), (link_held, link_s), (edge_held, edge_s))):
                cost = cost + price[:, stage, None, None, None] / period_s * held * longer[:, stage]
                cost = cost + self._task_price * own_s * longer[:, stage] / period_s

        shape = self.choices.shape
        now = observation.max_rate_bps / np.maximum(rate, 1e-300)
        now = np.where(observation.max_rate_bps > 0, now, 1.0)
        parts = (
            self._share,
            self._ratio,
            np.log1p(local_s / period_s),
            np.log1p(link_s / period_s),
            np.log1p(edge_s / period_s),
            np.log1p(local_wait_s / period_s),
            np.log1p(link_wait_s / period_s),
            np.log1p(edge_wait_s / period_s),
            np.log1p(energy_price * local_j),
            np.log1p(energy_price * link_j),
            load[:, 0],
            load[:, 1],
            load[:, 2],
            now[..., None, None],
            self.choices == observation.cuts[..., None],
            np.log1p(cost),
        )
        features = np.stack([np.broadcast_to(part, shape) for part in parts], axis=-1).astype(np.float32)
        features[~self.valid] = 0
        return Candidates(features, np.where(self.valid, cost, np.inf))

    def _follow(self, observation: Period) -> Floats:
        """Update the running means; returns the mean of R, (E, M)."""
        settings = self.settings
        seen = observation.max_rate_bps
        if not seen.any():
            guess = FIRST_GUESS_BITS_PER_S_PER_HZ * settings.device_bandwidth_hz[:, None]
            return np.asarray(np.broadcast_to(guess, seen.shape))
        if self._mean_rate is None:
            self._mean_rate = seen.copy()
        # An episode begins with zeros while its world, and what is known of the channel, goes on.
        self._mean_rate = np.where(
            seen > 0, self._mean_rate + CHANNEL_SMOOTHING * (seen - self._mean_rate), self._mean_rate
        )
        rate = np.where(self._mean_rate > 0, self._mean_rate, settings.device_bandwidth_hz[:, None])
        served = observation.service_rate.sum(axis=3)
        edge = np.broadcast_to(served[:, 2].sum(axis=1, keepdims=True), served[:, 2].shape)
        used = np.stack(
            [
                served[:, 0] / settings.max_local_frequency_hz,
                served[:, 1] / rate,
                edge / settings.max_edge_frequency_hz[:, None],
            ],
            axis=1,
        )
        self._load = self._load + LOAD_SMOOTHING * (np.minimum(used, 1.0) - self._load)
        return np.asarray(rate)

    def _tasks(self, observation: Period) -> Floats:
        """How many tasks wait at each station, (3, E, M)."""
        settings = self.settings
        shape = observation.max_rate_bps.shape
        edge_hz = np.broadcast_to(settings.max_edge_frequency_hz[:, None], shape)
        full_rate = np.stack([settings.max_local_frequency_hz, observation.max_rate_bps, edge_hz], axis=1)
        return self._line.follow(
            settings.work_at(observation.cuts),
            observation.backlog,
            observation.service_rate,
            full_rate,
            settings.slot_s * settings.slots_per_period,
        )

    def _waiting(self, observation: Period) -> Floats:
        """Work queued or on its way to each station of a device, (E, 3, M); the edge's by the device it comes from."""
        local, bits, edge = np.moveaxis(self.settings.work_at(observation.cuts), 1, 0)
        queued = observation.backlog
        link = queued[:, 1] + _ratio(queued[:, 0], local) * bits
        last = queued[:, 2] + _ratio(link, bits) * edge
        return np.asarray(np.stack([queued[:, 0], link, last], axis=1).sum(axis=3))

    def _priced_work(
        self, prices: TaskPrices, observation: Period, waiting: Floats, tasks: Floats
    ) -> tuple[Floats, ...]:
        """What a task takes at its price: seconds, joules and seconds of waiting at processor and link, and the price.

        Seconds and joules are those of the speed and the level that the price asks for with one task more than wait.
        """
        settings = self.settings
        prices.follow(observation.max_rate_bps)
        now = prices.at(tasks)
        parts: list[Floats] = []
        total = np.zeros_like(self._work[:, 0])
        for stage, (unit_j, unit_s) in enumerate(((now.cycle_j, now.cycle_s), (now.bit_j, now.bit_s))):
            work = self._work[:, stage]
            there = work > 0
            unit_j, unit_s = (one[..., None, None] for one in (unit_j, unit_s))
            own_s, price_j = (np.multiply(work, one, out=np.zeros_like(work), where=there) for one in (unit_s, unit_j))
            wage_w = (tasks[stage] * settings.latency_price_w)[..., None, None]
            own_j = np.subtract(price_j, wage_w * own_s, out=np.zeros_like(work), where=np.isfinite(own_s))
            own_j = np.maximum(own_j, 0.0)
            before = waiting[:, stage, :, None, None]
            parts += [own_s, own_j, np.multiply(before, unit_s, out=np.zeros_like(before), where=before > 0)]
            total = total + price_j
        return *parts, total

    def _local(self, waiting: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Seconds, joules and cycle-seconds that a task adds at each candidate, and seconds waiting, (E, M, 1, 1)."""
        settings = self.settings
        slot_s = settings.slot_s[:, None, None, None]
        station = {
            "max_frequency_hz": settings.max_local_frequency_hz[..., None, None],
            "energy_coefficient": settings.energy_coefficient[..., None, None],
            "energy_weight": settings.local_energy_weight[..., None, None],
        }
        before = waiting[..., None, None]
        waiting_s = local_drain_s(before, **station)
        added_s = local_drain_s(before + self._work[:, 0], **station) - waiting_s
        held = local_backlog_cycle_s(before + self._work[:, 0], **station) - local_backlog_cycle_s(before, **station)
        added_j = local_added_j(before, self._work[:, 0], slot_s=slot_s, **station)
        load_hz = self._load[:, 0, :, None, None] * station["max_frequency_hz"]
        added_j = added_j + local_followers_j(
            before + self._work[:, 0] / 2, held, load_hz=load_hz, slot_s=slot_s, **station
        )
        return added_s, added_j, waiting_s, held

    def _link(self, waiting: Floats, max_rate: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """The same for the link, at the mean channel."""
        settings = self.settings
        link = {
            "full_rate_bps": max_rate[..., None, None],
            "bandwidth_hz": settings.device_bandwidth_hz[:, None, None, None],
            "max_power_w": settings.max_power_w[..., None, None],
        }
        before = waiting[..., None, None]
        work = self._work[:, 1]
        rate = link_rate_bps(
            before + work / 2, energy_weight=settings.transmission_energy_weight[..., None, None], **link
        )
        slot_s = settings.slot_s[:, None, None, None]
        added_j = link_added_j(before, work, rate_bps=rate, slot_s=slot_s, **link)
        own_s = work / rate
        return own_s, added_j, before / rate, own_s * (before + work / 2)


def _ratio(part: Floats, whole: Floats) -> Floats:
    out = np.zeros_like(part)
    np.divide(part, whole, out=out, where=whole > 0)
    return out
