"""The cut rule of the price of time: each period and service, the cut whose task costs least. No search, no training.

A task at cut k costs the device ``cycles_k`` cycles at the price of a cycle, and ``bits_k`` bits at the price of a bit,
both with one task more than there is now, since it waits with them; and w for every second that the edge needs for it::

    cycles_k (n w + P(s)) / s  +  bits_k lambda_n  +  w edge_cycles_k / F^e

The prices hold the time that the task and those with it wait (n w a second), as long as the device is never idle for
want of work; see ``docs/price_of_time.md``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from splitinfer.energy.processor import processor_cruise_hz, processor_power_w
from splitinfer.scheduling.observation import Observation
from splitinfer.scheduling.policy import Cuts
from splitinfer.scheduling.setting import Setting

Array = NDArray[np.float64]


class PriceCut:
    """The cut of least price, from the tasks that wait now.

    How many tasks wait is not observed; the backlog over the work of a task at the cut in force tells it.

    Args:
        smoothing: share of the newest period in the running number of waiting tasks, in (0, 1].
    """

    name = "price"

    def __init__(self, *, smoothing: float = 1.0) -> None:
        self._smoothing = smoothing

    def reset(self, setting: Setting, rng: np.random.Generator) -> None:
        from splitinfer.scheduling.pricing import bit_prices

        self._setting = setting
        self._channel = bit_prices(setting)
        self._radio = np.array(setting.radio)
        self._valid = np.arange(setting.local_cycles.shape[2]) <= setting.num_cuts[..., None]
        self._waiting = np.zeros((2, setting.num_devices))

    def set_latency_price(self, latency_price_w: Array) -> None:
        """Go by another w from now on, shape (M,): a latency target moves it."""
        if np.any(latency_price_w != self._setting.latency_price_w):
            self._setting = self._setting.replace(latency_price_w=latency_price_w)
            self._channel.prices[:] = 0.0

    def cuts(self, observation: Observation) -> Cuts:
        setting = self._setting
        self._follow(observation)
        cycle_j = np.array([self._price_of_cycle(m, self._waiting[0, m] + 1) for m in range(setting.num_devices)])
        bit_j = np.array([self._price_of_bit(m, self._waiting[1, m] + 1) for m in range(setting.num_devices)])
        edge_s = setting.edge_cycles / max(setting.max_edge_frequency_hz, 1e-300)
        cost = setting.latency_price_w[:, None, None] * edge_s
        # Nothing to send costs nothing, also where the channel carries nothing and a bit has no price.
        cost = cost + np.where(setting.transmission_bits > 0, setting.transmission_bits * bit_j[:, None, None], 0.0)
        cost = cost + np.where(setting.local_cycles > 0, setting.local_cycles * cycle_j[:, None, None], 0.0)
        best = np.argmin(np.where(self._valid, cost, np.inf), axis=2)
        return np.where(setting.active, best, 0)

    def _follow(self, observation: Observation) -> None:
        setting = self._setting
        at = observation.cuts[..., None]
        for stage, (table, queue) in enumerate(
            (
                (setting.local_cycles, observation.local_queue_cycles),
                (setting.transmission_bits, observation.transmission_queue_bits),
            )
        ):
            work = np.take_along_axis(table, at, axis=2)[..., 0]
            tasks = np.divide(queue, work, out=np.zeros_like(work), where=work > 0).sum(axis=1)
            self._waiting[stage] += self._smoothing * (tasks - self._waiting[stage])
        rate = observation.max_rate_bps
        if (setting.mean_gain <= 0).any() and rate.any():
            # The gain at which full power carries what it did: the nearest thing to a mean gain that is observed.
            snr = np.expm1(rate / setting.device_bandwidth_hz * np.log(2))
            gain = snr * setting.device_bandwidth_hz * setting.noise_w_per_hz / np.maximum(setting.max_power_w, 1e-300)
            from splitinfer.scheduling.pricing import follow_gain_row

            for m in range(setting.num_devices):
                for _ in range(setting.slots_per_period):
                    follow_gain_row(self._channel, m, float(gain[m]))

    def _price_of_cycle(self, m: int, tasks: float) -> float:
        setting = self._setting
        wage_w = tasks * float(setting.latency_price_w[m])
        speed = processor_cruise_hz(setting.processor, m, wage_w, float(setting.max_local_frequency_hz[m]))
        return (wage_w + processor_power_w(setting.processor, m, speed)) / speed if speed > 0 else np.inf

    def _price_of_bit(self, m: int, tasks: float) -> float:
        """Between whole numbers of tasks, in proportion."""
        low = int(tasks)
        below = self._price_for(m, low)
        return below if tasks == low else below + (tasks - low) * (self._price_for(m, low + 1) - below)

    def _price_for(self, m: int, tasks: int) -> float:
        from splitinfer.scheduling.pricing import price_row

        setting = self._setting
        if self._channel.mean_gain[m] <= 0:  # nothing is known of the channel yet
            return 1.0 / setting.device_bandwidth_hz
        return float(
            price_row(
                tasks,
                m,
                float(setting.latency_price_w[m]),
                self._channel,
                self._radio,
                setting.device_bandwidth_hz,
                setting.noise_w_per_hz,
                float(setting.max_power_w[m]),
            )
        )
