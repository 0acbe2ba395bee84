"""The cut rule of the price of time: each period and service, the cut whose task costs least. No search, no training.

A task at cut k costs the device ``cycles_k`` cycles at the price of a cycle, and ``bits_k`` bits at the price of a
bit, both with one task more than there is now, since it waits with them; and w for every second that it and those who
wait at the edge spend there on its account::

    cycles_k (n w + P(s)) / s  +  bits_k lambda_n  +  w n_e edge_cycles_k / F^e / (1 - u)

Where answers take time to come back (``answer_s``), a cut that sends anything costs w for that time besides.

The edge is shared, and no price of energy keeps devices from crowding it: n_e counts the tasks of all devices there,
and u is the share of F^e in use. On an idle edge the last part is w for the task's own time.

Where w grows with waiting (``price_growth_s``), it is taken as what it has grown to when a task leaves the device after
a mean time: their number over the nominal rate of arrivals, by Little's law.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from splitinfer.scheduling.observation import Observation
from splitinfer.scheduling.policy import Cuts
from splitinfer.scheduling.setting import Setting
from splitinfer.scheduling.task_prices import LOAD_SMOOTHING, TaskPrices, WaitingTasks, patience

Array = NDArray[np.float64]


class PriceCut:
    """The cut of least price, from the tasks that wait now.

    Args:
        smoothing: share of the newest period in the running number of waiting tasks, in (0, 1].
    """

    name = "price"

    def __init__(self, *, smoothing: float = 1.0) -> None:
        self._smoothing = smoothing

    def reset(self, setting: Setting, rng: np.random.Generator) -> None:
        self._setting = setting
        self._prices = TaskPrices(setting)
        self._valid = np.arange(setting.local_cycles.shape[2]) <= setting.num_cuts[..., None]
        self._line = WaitingTasks()
        self._waiting = np.zeros((3, setting.num_devices))
        self._usual = np.zeros(setting.num_devices)
        self._edge_load = 0.0

    def set_latency_price(self, latency_price_w: Array) -> None:
        """Go by another w from now on, shape (M,): a latency target moves it."""
        if np.any(latency_price_w != self._setting.latency_price_w):
            self._setting = self._setting.replace(latency_price_w=latency_price_w)

    def cuts(self, observation: Observation) -> Cuts:
        setting = self._setting
        self._follow(observation)
        tasks = self._waiting + 1
        price_w = self._grown_price_w()
        self._prices.set_latency_price(price_w)
        prices = self._prices.at(tasks)
        edge_s = setting.edge_cycles / max(setting.max_edge_frequency_hz, 1e-300)
        cost = (tasks[2] * patience(self._edge_load) * price_w)[:, None, None] * edge_s
        way_back_j = (price_w[:, None] * setting.answer_s)[..., None]
        cost = cost + np.where(setting.transmission_bits > 0, way_back_j, 0.0)
        # Nothing to send costs nothing, also where the channel carries nothing and a bit has no price.
        for work, price in ((setting.transmission_bits, prices.bit_j), (setting.local_cycles, prices.cycle_j)):
            cost = cost + np.multiply(work, price[:, None, None], out=np.zeros_like(work), where=work > 0)
        best = np.argmin(np.where(self._valid, cost, np.inf), axis=2)
        return np.where(setting.active, best, 0)

    def _follow(self, observation: Observation) -> None:
        setting, at = self._setting, observation.cuts[..., None]
        tables = (setting.local_cycles, setting.transmission_bits, setting.edge_cycles)
        work = np.stack([np.take_along_axis(table, at, axis=2)[..., 0] for table in tables])
        period, rate_bps = observation.period, observation.max_rate_bps
        edge_hz = np.full_like(rate_bps, setting.max_edge_frequency_hz)
        full_rate = np.stack([setting.max_local_frequency_hz, rate_bps, edge_hz])
        waiting = self._line.follow(work, period.backlog, period.service_rate, full_rate, setting.period_s)
        self._waiting += self._smoothing * (waiting - self._waiting)
        self._usual += LOAD_SMOOTHING * (self._line.followed[:2].sum(axis=0) - self._usual)
        self._prices.follow(rate_bps)
        used = float(observation.edge_frequency_hz.sum()) / max(setting.max_edge_frequency_hz, 1e-300)
        self._edge_load += LOAD_SMOOTHING * (min(used, 1.0) - self._edge_load)

    def _grown_price_w(self) -> Array:
        setting = self._setting
        if setting.price_growth_s <= 0:
            return setting.latency_price_w
        arrivals_hz = np.where(setting.active, setting.arrival_rate_hz, 0.0).sum(axis=1)
        # A task counts by the share of its work that is left, a half on average.
        age_s = np.divide(2 * self._usual, arrivals_hz, out=np.zeros_like(arrivals_hz), where=arrivals_hz > 0)
        return np.asarray(setting.latency_price_w * (1 + age_s / setting.price_growth_s))
