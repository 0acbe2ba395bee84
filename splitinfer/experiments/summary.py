"""What the rows of a sweep amount to: means with bands, LyaPPO's reductions, when a training curve has settled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splitinfer.experiments.rows import Row

CONFIDENCE = 0.95

MOST_UNFINISHED = 0.05
"""Share of requests under way at the end of a run beyond which its energy is not that of serving its load."""

SETTLED_WITHIN = 0.05
"""A curve has settled once it stays this close to where it ends, relative to that."""


@dataclass(frozen=True)
class Band:
    """A mean and the half width of its confidence interval (nan where there is one seed of everything)."""

    mean: float
    half_width: float


@dataclass(frozen=True)
class Reduction:
    """How much less energy one policy takes than another.

    Attributes:
        percent: mean over the points of the reduction at each, 100 (1 - E / E_baseline), where E is the mean over all
            seeds.
        stable_percent: the same over the points where both are stable; nan where there are none.
        by_point: the reduction at each point, (value, percent).
        unstable_points: number of points where the baseline is not stable.
        points: number of points.
    """

    percent: float
    stable_percent: float
    by_point: tuple[tuple[float | None, float], ...]
    unstable_points: int
    points: int


def of_policy(rows: Sequence[Row], policy: str) -> list[Row]:
    """Return one policy's rows."""
    return [row for row in rows if row["policy"] == policy]


def points_of(rows: Sequence[Row]) -> list[float | None]:
    """Return the swept values that occur, from least to largest."""
    return sorted({row["value"] for row in rows}, key=lambda value: value or 0.0)


def at_point(rows: Sequence[Row], value: float | None) -> list[Row]:
    """Return the rows of one point."""
    return [row for row in rows if row["value"] == value]


def mean_of(rows: Sequence[Row], column: str) -> float:
    """Return the mean of a column over all rows that have it: every point and seed counts alike."""
    values = [row[column] for row in rows if row.get(column) is not None]
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def band(rows: Sequence[Row], column: str) -> Band:
    """Return the mean of one policy at one point and its 95 % interval over seeds.

    Runs of one training are alike, and so are runs on one evaluation seed. The variance of the mean is the sum of what
    T trainings and S evaluation seeds contribute, each estimated from its own means, s_T^2/T + s_S^2/S; the degrees of
    freedom are Welch's and Satterthwaite's.
    """
    trainings = sorted({row["training_seed"] for row in rows}, key=lambda seed: -1 if seed is None else seed)
    seeds = sorted({row["seed"] for row in rows})
    table = np.full((len(trainings), len(seeds)), np.nan)
    for row in rows:
        table[trainings.index(row["training_seed"]), seeds.index(row["seed"])] = row[column]
    mean = float(table.mean())
    parts, freedom = 0.0, 0.0
    for means in (table.mean(axis=1), table.mean(axis=0)):
        if len(means) > 1:
            part = float(means.var(ddof=1)) / len(means)
            parts += part
            freedom += part**2 / (len(means) - 1)
    if table.size == 1:
        return Band(mean, float("nan"))
    if not freedom:
        return Band(mean, 0.0)
    from scipy.special import stdtrit

    return Band(mean, float(stdtrit(parts**2 / freedom, (1 + CONFIDENCE) / 2)) * parts**0.5)


def is_stable(rows: Sequence[Row]) -> bool:
    """Whether a policy is stable at a point: no queue grows in most of the runs, and nearly all requests are finished.

    Args:
        rows: of one policy at one point.
    """
    steady = 2 * sum(bool(row["stable"]) for row in rows) > len(rows)
    arrived, finished = (sum(int(row[name]) for row in rows) for name in ("arrived", "finished"))
    return steady and finished >= (1 - MOST_UNFINISHED) * arrived


def unstable_points(rows: Sequence[Row], policy: str) -> list[float | None]:
    """Return the points at which a policy is not stable."""
    own = of_policy(rows, policy)
    return [value for value in points_of(own) if not is_stable(at_point(own, value))]


def reduction(rows: Sequence[Row], policy: str, baseline: str) -> Reduction:
    """Compare the total energy of two policies over a sweep."""
    percent, both_stable = [], []
    for value in points_of(rows):
        here = at_point(rows, value)
        ours, theirs = of_policy(here, policy), of_policy(here, baseline)
        percent.append(100 * (1 - mean_of(ours, "energy_j") / mean_of(theirs, "energy_j")))
        both_stable.append(is_stable(ours) and is_stable(theirs))
    kept = [one for one, stable in zip(percent, both_stable, strict=True) if stable]
    return Reduction(
        percent=float(np.mean(percent)),
        stable_percent=float(np.mean(kept)) if kept else float("nan"),
        by_point=tuple(zip(points_of(rows), percent, strict=True)),
        unstable_points=len(unstable_points(rows, baseline)),
        points=len(percent),
    )


@dataclass(frozen=True)
class Curve:
    """The training curves of one algorithm: ``slots`` (P,), and per training seed ``values`` (T, P)."""

    slots: NDArray[np.int64]
    values: NDArray[np.float64]

    @property
    def settled_slots(self) -> int:
        """Slots after which the mean over trainings stays within 5 % of its end; both are means over a tenth."""
        mean = self.values.mean(axis=0)
        width = max(1, len(mean) // 10)
        smooth = np.convolve(mean, np.ones(width) / width, mode="valid")
        far = np.flatnonzero(np.abs(smooth - smooth[-1]) > SETTLED_WITHIN * abs(smooth[-1]))
        first = 0 if not len(far) else int(far[-1]) + 1
        return int(self.slots[first + width - 1])

    @property
    def end(self) -> float:
        """The mean over the last tenth, over all trainings."""
        return float(self.values[:, -max(1, self.values.shape[1] // 10) :].mean())


def curve(rows: Sequence[Row], column: str) -> Curve:
    """Return one algorithm's curves; all trainings have as many points, as their settings are the same."""
    seeds = sorted({row["training_seed"] for row in rows})
    by_seed = [[row for row in rows if row["training_seed"] == seed] for seed in seeds]
    length = min(len(own) for own in by_seed)
    return Curve(
        np.array([row["slots"] for row in by_seed[0][:length]], np.int64),
        np.array([[row[column] for row in own[:length]] for own in by_seed]),
    )
