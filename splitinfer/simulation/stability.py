"""Does a queue grow for ever? A test on how its mean moves from one part of a run to the next.

Below its capacity a queue returns to where it was; above it, its length is a random walk with drift. The test asks
whether the rise over the run is more than a random walk without drift, of the same step size, would make:

- Cut the run into B batches of equal length and take the queue's mean in each, q_1 .. q_B; d_i = q_(i+1) - q_i.
- z = mean(d) sqrt(B - 1) / (sd(d) sqrt(3/2)); the queue grows if z is above the one-sided t quantile with B - 2 degrees
  of freedom.

The factor 3/2 is the robust part: batch means of a random walk have steps that correlate by 1/4 with their neighbours
and by 0 beyond, so the variance of their sum is 1 + 2/4 times what independent steps would give. At the edge of
stability the test has its nominal level; away from it, on the stable side, the sum of the d telescopes to q_B - q_1,
which stays put while sd(d) does not shrink: z goes to 0 like B^(-1/2) and false alarms vanish. On the unstable side z
grows like the square root of the run's length. No length is called too long: a deep queue that stays as deep is stable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

BATCHES = 20
LEAST_BATCHES = 4
"""With fewer nothing can be said."""


@dataclass(frozen=True)
class StabilityReport:
    """Result of the test on each station: the backlogs of a device's processor and link, of the edge, and of downlinks.

    Attributes:
        stations: names, for example ``("device 0 local", ..., "edge")``.
        statistic: z of each station, shape (stations,).
        p_value: probability of such a z in a queue that does not grow, shape (stations,).
        growth_per_s: mean rise in cycles (bits, or seconds of answers on their way back) per second, shape (stations,).
        level: the family-wise level; each station is tested at level / stations (Bonferroni).
        is_known: whether the run was long enough to be tested; no queue of a shorter one counts as growing.
    """

    stations: tuple[str, ...]
    statistic: Array
    p_value: Array
    growth_per_s: Array
    level: float = 0.01
    is_known: bool = True

    @property
    def stable(self) -> bool:
        """Whether no station grows."""
        return not self.growing

    @property
    def growing(self) -> tuple[str, ...]:
        """Names of the stations that grow, the surest first."""
        order = np.argsort(self.p_value, kind="stable")
        return tuple(self.stations[i] for i in order if self.p_value[i] < self.level / len(self.stations))


def growth_test(means: Array) -> tuple[Array, Array]:
    """Test series of queue means for growth.

    Args:
        means: mean backlog in successive parts of a run of equal length, shape (parts, ...). They are grouped into
            ``BATCHES`` batches; with fewer than four parts nothing can be said.

    Returns:
        z and the one-sided p-value, shape (...). Without variation z is 0 (or infinite, where the rise is even).
    """
    from scipy.special import stdtr

    batches = batch_means(means, BATCHES)
    steps = np.diff(batches, axis=0)
    if len(batches) < LEAST_BATCHES:
        return np.zeros(means.shape[1:]), np.ones(means.shape[1:])
    rise = steps.mean(axis=0)
    spread = steps.std(axis=0, ddof=1) * np.sqrt(1.5 / len(steps))
    # Rounding is no variation: what is below it counts as none.
    floor = 1e-9 * np.abs(batches).max(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(np.abs(rise) <= floor, 0.0, rise / np.where(spread <= floor, 0.0, spread))
    return z, stdtr(len(steps) - 1, -z)


def batch_means(series: Array, batches: int) -> Array:
    """Group a series (parts, ...) into at most ``batches`` batches of equal length; parts left over at the start go."""
    length = max(1, len(series) // batches)
    count = len(series) // length
    kept = series[len(series) - count * length :]
    means: Array = kept.reshape(count, length, *series.shape[1:]).mean(axis=1)
    return means


def station_backlogs(mean_backlog: Array) -> Array:
    """Sum backlogs (..., 3, M, N) over what each server serves: (..., 2M + 1), local and link per device, then edge."""
    per_device = mean_backlog.sum(axis=-1)
    local, link, edge = per_device[..., 0, :], per_device[..., 1, :], per_device[..., 2, :]
    return np.concatenate([local, link, edge.sum(axis=-1, keepdims=True)], axis=-1)


def stability_of(
    backlogs: Array, part_s: float, *, way_back_s: Array | None = None, level: float = 0.01
) -> StabilityReport:
    """Test a whole run.

    Args:
        backlogs: mean backlog of each station in successive parts, shape (parts, 2M + 1), from ``station_backlogs``.
        part_s: length of a part.
        way_back_s: likewise of each device's answers on their way back, shape (parts, M), where that takes time.
        level: family-wise level of false alarms.
    """
    devices = (backlogs.shape[1] - 1) // 2
    names = [f"device {m} {kind}" for kind in ("local", "link") for m in range(devices)]
    names.append("edge")
    if way_back_s is not None:
        backlogs = np.concatenate([backlogs, way_back_s], axis=1)
        names += [f"device {m} downlink" for m in range(devices)]
    z, p = growth_test(backlogs)
    batches = batch_means(backlogs, BATCHES)
    span_s = max(1, len(batches) - 1) * part_s * max(1, len(backlogs) // BATCHES)
    growth = (batches[-1] - batches[0]) / span_s
    return StabilityReport(tuple(names), z, p, growth, level, is_known=len(batches) >= LEAST_BATCHES)
