"""What a task costs under the price of time on each of many devices: what the policy `price` and learning go by.

The prices hold the time that the task and those with it wait (n w a second), as long as the device is never idle for
want of work; see ``docs/price_of_time.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LOAD_SMOOTHING = 0.02
"""Share of the newest period in the mean load: about five seconds, a few tasks."""

FOLLOWED_LOAD = 0.5
"""With 0 in its place, `busy` and `drifting` cost 1 and 4 % less, and `table2` moves in the fourth digit."""

MOST_LOAD = 0.98
"""Loads above this count as this in 1/(1 - u). At 0.9, a device at 94 % lets queues grow to seconds."""


@dataclass(frozen=True, eq=False)
class Prices:
    """Of one unit of work on each device, arrays of the shape of ``latency_price_w``.

    Attributes:
        cycle_j, bit_j: joules, with w for every second that the tasks there wait.
        cycle_s, bit_s: the seconds in it.
    """

    cycle_j: Floats
    cycle_s: Floats
    bit_j: Floats
    bit_s: Floats


class TaskPrices:
    """Follows the channels of one setting's devices, or of a stack of settings', and prices cycles and bits there.

    Args:
        settings: a ``Setting``, or a stack of them, whose arrays have a leading axis E.
    """

    def __init__(self, settings: Any) -> None:
        from splitinfer.scheduling.pricing import bit_prices

        self._shape = np.shape(settings.latency_price_w)
        self._slots = int(np.max(settings.slots_per_period))
        self._channel = bit_prices(settings)
        self._wage_w = np.array(settings.latency_price_w, np.float64).ravel()
        self._processor = np.array(settings.processor).reshape(len(self._wage_w), -1)
        self._radio = np.array(settings.radio).reshape(len(self._wage_w), -1)
        self._max_hz, self._max_w = np.ravel(settings.max_local_frequency_hz), np.ravel(settings.max_power_w)
        self._bandwidth_hz, self._noise = (
            np.broadcast_to(np.asarray(value, np.float64)[..., None], self._shape).ravel()
            for value in (settings.device_bandwidth_hz, settings.noise_w_per_hz)
        )

    def set_latency_price(self, latency_price_w: Floats) -> None:
        """Go by another w from now on."""
        if np.any(np.ravel(latency_price_w) != self._wage_w):
            self._wage_w = np.array(latency_price_w, np.float64).ravel()
            self._channel.prices[:] = 0.0

    def follow(self, max_rate_bps: Floats) -> None:
        """Take in what the channels would have carried in a period, where their mean gain is not known beforehand."""
        seen = np.broadcast_to(max_rate_bps.any(axis=-1, keepdims=True), self._shape).ravel()
        if not (seen & (self._channel.seen >= 0)).any():
            return
        from splitinfer.scheduling.pricing import follow_gains

        # The gain at which full power carries what it did: the nearest thing to a mean gain that is observed.
        snr = np.expm1(np.ravel(max_rate_bps) / self._bandwidth_hz * np.log(2))
        gain = snr * self._bandwidth_hz * self._noise / np.maximum(self._max_w, 1e-300)
        follow_gains(self._channel, gain, seen, self._slots)

    def at(self, tasks: Floats) -> Prices:
        """Return the prices with so many tasks at each device's processor and link; ``tasks`` is (2 or more, ...)."""
        from splitinfer.scheduling.pricing import task_prices

        out = np.empty((4, len(self._wage_w)))
        task_prices(
            np.ascontiguousarray(tasks[:2], np.float64).reshape(2, -1),
            self._wage_w,
            self._processor,
            self._max_hz,
            self._channel,
            self._radio,
            self._bandwidth_hz,
            self._noise,
            self._max_w,
            out,
        )
        return Prices(*out.reshape(4, *self._shape))


class WaitingTasks:
    """How many tasks wait at each device's processor and link, and at the edge for all devices.

    It is not observed; the backlog over the work of a task at the cut in force tells it. Where a station is busy, those
    who came under an earlier cut are told apart: they bring its work and are served first. Otherwise a long queue
    at the link was out of sight as soon as the cut in force sent nothing, and the next cut sent still more there.

    Args:
        followed_load: share of a station in use from which on earlier cuts are followed.

    Attributes:
        followed: (..., 3, M), the numbers with earlier cuts followed everywhere.
    """

    def __init__(self, *, followed_load: float = FOLLOWED_LOAD) -> None:
        self._followed_load = followed_load
        self._work: Floats | None = None

    def follow(self, work: Floats, backlog: Floats, service_rate: Floats, full_rate: Floats, period_s: Any) -> Floats:
        """Take in a period; returns the numbers at its end, (3, ..., M), those at the edge the same for all devices.

        Args:
            work: (..., 3, M, N), of a task at the cut that was in force.
            backlog: likewise, mean of the period.
            service_rate: likewise.
            full_rate: (..., 3, M), what each station could give: F^l, R and F^e.
            period_s: its length, of one shape with the leading axes.
        """
        if self._work is None:
            self._work, self._each = work, work
            self._tasks, self._backlog, self._older, self._older_tasks = (np.zeros_like(backlog) for _ in range(4))
            self._load = np.zeros_like(full_rate)
        used = service_rate.sum(axis=-1)
        used[..., 2, :] = used[..., 2, :].sum(axis=-1, keepdims=True)
        self._load = self._load + LOAD_SMOOTHING * (np.minimum(_over(used, full_rate), 1.0) - self._load)

        changed = work != self._work
        self._work, self._each = work, np.where(work > 0, work, self._each)
        older = np.where(changed, self._backlog, self._older)
        older_tasks = np.where(changed, self._tasks, self._older_tasks)
        self._older = np.clip(older - service_rate * np.asarray(period_s)[..., None, None, None], 0.0, backlog)
        self._older_tasks = older_tasks * _over(self._older, older)
        self._tasks = self._older_tasks + _over(backlog - self._older, self._each)
        self._backlog = backlog
        self.followed = self._tasks.sum(axis=-1)
        now = np.where(self._load > self._followed_load, self.followed, _over(backlog, work).sum(axis=-1))
        tasks: Floats = np.moveaxis(now, -2, 0)
        tasks[2] = tasks[2].sum(axis=-1, keepdims=True)
        return tasks


def _over(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def patience(load: Any) -> Any:
    """Return how many times as long others wait for a task where a share ``load`` of a station is in use.

    A task holds up those who are there, and those who come before the station is idle again: ``1 / (1 - load)``.
    """
    return 1 / (1 - np.minimum(load, MOST_LOAD))
