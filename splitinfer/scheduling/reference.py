"""Problems 3, 4 and 5 through CVXPY and Clarabel: the reference that the closed forms are held against.

Each problem is stated once per number of services, as a disciplined parametrised program, and kept; a solve only sets
parameters. Variables are shares, between 0 and 1, of the most that can be worth serving: the limit of the device (the
edge), all the backlog within one slot, or ``ROOM`` times the rate at which even the largest backlog is not worth the
next joule, whichever is least. Objectives are divided by their largest coefficient. So the interior-point solver sees
numbers of order one however large cycles and weights are.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splitinfer.errors import SplitInferError
from splitinfer.radio import LN2, rate_bps, shannon_power_w
from splitinfer.scheduling.allocation import Batch

Floats = NDArray[np.float64]

ROOM = 2.0
"""Above 1, so that the bound which only serves for scaling never binds."""

SLIVER = 1e-8
"""A share this close to all of the backlog is taken to be all of it."""

SMALL_CURVATURE = 1e-2
"""Below this, exp(curvature·share) is all but linear and an exponential cone loses the difference between worth and
cost to rounding. Its series to fourth order is then exact to 1e-10, and the linear part joins the worth."""


class CvxpyAllocator:
    """A ``SlotAllocator`` that solves every problem numerically, one at a time.

    Args:
        tolerance: Clarabel's gap and feasibility tolerance on the scaled problem; where it cannot be reached, ten and
            a hundred times as much.

    Raises:
        SplitInferError: (from the methods) the solver does not reach the tolerance. Clarabel's exponential cone is
            known to give up on Problem 4 with some hundreds of services; the closed form has no such limit.
    """

    def __init__(self, *, tolerance: float = 1e-9) -> None:
        self._tolerance = tolerance
        self._programs: dict[tuple[str, int], _Program] = {}

    def allocate_local(
        self,
        queue_cycles: ArrayLike,
        *,
        slot_s: ArrayLike,
        energy_weight: ArrayLike,
        energy_coefficient: ArrayLike,
        max_frequency_hz: ArrayLike,
        queue_weight: ArrayLike = 1.0,
    ) -> Floats:
        """Problem 3; as ``scheduling.allocate_local``."""
        batch = Batch("queue_cycles", queue_cycles, queue_weight)
        slot = batch.parameter("slot_s", slot_s, positive=True)
        energy = batch.parameter("energy_weight", energy_weight)
        coefficient = batch.parameter("energy_coefficient", energy_coefficient)
        limit = batch.parameter("max_frequency_hz", max_frequency_hz)
        out = np.zeros_like(batch.queue)
        for i, (queue, weight) in enumerate(zip(batch.queue, batch.weight, strict=True)):
            steepness = 3 * energy[i] * coefficient[i]
            worth_at_most = np.sqrt((weight * queue).max(initial=0.0) / steepness) if steepness > 0 else np.inf
            top = min(limit[i], queue.sum() / slot[i], ROOM * worth_at_most)
            if top > 0:
                gain = weight * queue * top
                cost = energy[i] * coefficient[i] * top**3
                out[i] = top * self._solve("cubic", queue / slot[i] / top, gain, cost)
        return out.reshape(batch.shape)

    def allocate_transmission(
        self,
        queue_bits: ArrayLike,
        *,
        slot_s: ArrayLike,
        energy_weight: ArrayLike,
        bandwidth_hz: ArrayLike,
        noise_w_per_hz: ArrayLike,
        channel_gain: ArrayLike,
        max_power_w: ArrayLike,
        queue_weight: ArrayLike = 1.0,
    ) -> tuple[Floats, Floats]:
        """Problem 4; as ``scheduling.allocate_transmission``."""
        batch = Batch("queue_bits", queue_bits, queue_weight)
        slot = batch.parameter("slot_s", slot_s, positive=True)
        energy = batch.parameter("energy_weight", energy_weight)
        bandwidth = batch.parameter("bandwidth_hz", bandwidth_hz, positive=True)
        noise = batch.parameter("noise_w_per_hz", noise_w_per_hz, positive=True)
        channel = batch.parameter("channel_gain", channel_gain)
        max_power = batch.parameter("max_power_w", max_power_w)
        limit = rate_bps(max_power, gain=channel, bandwidth_hz=bandwidth, noise_w_per_hz=noise)
        out = np.zeros_like(batch.queue)
        power = np.zeros(len(out))
        for i, (queue, weight) in enumerate(zip(batch.queue, batch.weight, strict=True)):
            if channel[i] == 0:
                continue
            steepness = energy[i] * noise[i] * LN2 / channel[i]
            excess = (weight * queue).max(initial=0.0) / steepness if steepness > 0 else np.inf
            top = min(limit[i], queue.sum() / slot[i], ROOM * bandwidth[i] * np.log1p(excess) / LN2)
            if top <= 0:
                continue
            curvature = top / bandwidth[i] * LN2
            caps, gain = queue / slot[i] / top, weight * queue * top
            cost = energy[i] * bandwidth[i] * noise[i] / channel[i]  # U·p(s) = cost·(exp(curvature·share) - 1)
            if curvature < SMALL_CURVATURE:
                shares = self._solve("series", caps, gain - cost * curvature, cost * curvature**2, curvature)
            else:
                shares = self._solve("exponential", caps, gain, cost * np.exp(curvature), curvature)
            out[i] = top * shares
            power[i] = min(max_power[i], shannon_power_w(out[i].sum(), channel[i], bandwidth[i], noise[i]))
        return out.reshape(batch.shape), power.reshape(batch.shape[:-1])

    def allocate_edge(
        self,
        queue_cycles: ArrayLike,
        *,
        slot_s: ArrayLike,
        max_frequency_hz: ArrayLike,
        queue_weight: ArrayLike = 1.0,
    ) -> Floats:
        """Problem 5; as ``scheduling.allocate_edge``."""
        batch = Batch("queue_cycles", queue_cycles, queue_weight)
        slot = batch.parameter("slot_s", slot_s, positive=True)
        limit = batch.parameter("max_frequency_hz", max_frequency_hz)
        out = np.zeros_like(batch.queue)
        for i, (queue, weight) in enumerate(zip(batch.queue, batch.weight, strict=True)):
            top = min(limit[i], queue.sum() / slot[i])
            if top > 0:
                out[i] = top * self._solve("linear", queue / slot[i] / top, weight * queue * top)
        return out.reshape(batch.shape)

    def _solve(self, kind: str, caps: Floats, gain: Floats, cost: float = 0.0, curvature: float = 0.0) -> Floats:
        """Shares of one problem, see ``_Program``; empty queues are left out."""
        waiting = np.flatnonzero(caps > 0)
        key = (kind, len(waiting))
        if key not in self._programs:
            self._programs[key] = _Program(kind, len(waiting), self._tolerance)
        shares = np.zeros_like(caps)
        shares[waiting] = self._programs[key].solve(np.minimum(caps[waiting], 1.0), gain[waiting], cost, curvature)
        return shares


class _Program:
    """One parametrised program: ``min -gain·x + cost·energy(s)``, ``0 <= x <= caps``, ``s = sum x <= 1``.

    ``energy`` is ``s^3`` (cubic), ``exp(curvature·(s - 1))`` (exponential), the terms of second to fourth order of
    ``(exp(curvature·s) - 1)/curvature^2`` (series), or nothing (linear).
    """

    def __init__(self, kind: str, services: int, tolerance: float) -> None:
        import cvxpy as cp

        self._tolerance = tolerance
        self._lock = threading.Lock()
        self._shares = cp.Variable(services, nonneg=True)
        self._caps = cp.Parameter(services, nonneg=True)
        self._gain = cp.Parameter(services)
        self._costs = cp.Parameter(3, nonneg=True)
        self._curvature = cp.Parameter(nonneg=True)
        total = cp.sum(self._shares)
        constraints = [self._shares <= self._caps, total <= 1]
        objective = -(self._gain @ self._shares)
        if kind == "cubic":
            objective = objective + self._costs[0] * cp.power(total, 3)
        elif kind == "exponential":
            # The exponent is a variable of its own: a parameter times a function of another one would not be DPP.
            exponent = cp.Variable()
            constraints.append(exponent == self._curvature * (total - 1))
            objective = objective + self._costs[0] * cp.exp(exponent)
        elif kind == "series":
            powers = (cp.power(total, order) for order in (2, 3, 4))
            objective = objective + sum(self._costs[i] * term for i, term in enumerate(powers))
        self._series = kind == "series"
        self._problem: Any = cp.Problem(cp.Minimize(objective), constraints)

    def solve(self, caps: Floats, gain: Floats, cost: float, curvature: float) -> Floats:

        scale = max(np.abs(gain).max(), cost) or 1.0
        with self._lock:
            self._caps.value = caps
            self._gain.value = gain / scale
            costs = (1 / 2, curvature / 6, curvature**2 / 24) if self._series else (1.0, 0.0, 0.0)
            self._costs.value = cost / scale * np.array(costs)
            self._curvature.value = curvature
            self._reach_optimum()
            shares = np.clip(np.asarray(self._shares.value), 0.0, caps)
        # Interior points end just inside a bound. A sliver left in a queue would be a task that is never done.
        shares = np.where(caps - shares <= SLIVER * np.minimum(1.0, 100 * caps), caps, shares)
        return np.asarray(shares / max(1.0, float(shares.sum())))

    def _reach_optimum(self) -> None:
        import cvxpy as cp

        for tolerance in (self._tolerance, 10 * self._tolerance, 100 * self._tolerance):
            with contextlib.suppress(cp.SolverError), warnings.catch_warnings():
                # CVXPY warns of an inaccurate answer; here that is a reason to try again, or an error.
                warnings.simplefilter("ignore", UserWarning)
                self._problem.solve(
                    solver=cp.CLARABEL,
                    tol_gap_abs=tolerance,
                    tol_gap_rel=tolerance,
                    tol_feas=tolerance,
                    enforce_dpp=True,
                )
                if self._problem.status == cp.OPTIMAL:
                    return
        raise SplitInferError(f"CVXPY could not solve an allocation problem of {self._shares.size} services")
