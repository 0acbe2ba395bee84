"""A world that moves: distances and arrival rates that change on a timetable within one run."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from splitinfer.errors import ScenarioError
from splitinfer.simulation.fields import NonNegative, PerDevice, PerService, Positive, Settings


class DriftStep(Settings):
    """What holds from ``at_s`` on; a field left out keeps the scenario's own value.

    Attributes:
        at_s: time from the start of the run, or of the cycle.
        distances_m: one distance for all devices or one per device.
        arrival_rate_hz: as the scenario's field of that name.
    """

    at_s: NonNegative
    distances_m: PerDevice | None = None
    arrival_rate_hz: PerService | None = None


class Drift(Settings):
    """The timetable.

    Attributes:
        steps: in the order of time, the first at 0.
        cycle_s: begin anew after this time; without it the last step lasts.
        change: ``"step"`` changes at once; ``"linear"`` moves evenly from each step to the next (and, in a cycle, from
            the last to the first).
    """

    steps: tuple[DriftStep, ...]
    cycle_s: Positive | None = None
    change: Literal["step", "linear"] = "step"

    def check(self) -> None:
        """Raise a ScenarioError where the times make no sense."""
        times = [step.at_s for step in self.steps]
        if not times or times[0] != 0:
            raise ScenarioError("drift.steps: the first step must be at 0 s")
        if any(later <= earlier for earlier, later in pairwise(times)):
            raise ScenarioError("drift.steps: at_s must increase from step to step")
        if self.cycle_s is not None and self.cycle_s <= times[-1]:
            raise ScenarioError(f"drift.cycle_s: must be after the last step ({times[-1]} s), not {self.cycle_s}")


class Timeline:
    """Values over the slots of a run, from the values at each step.

    Args:
        drift: the timetable.
        values: the value that holds at each step, shape (steps, ...).
        slot_s: slot length.
    """

    def __init__(self, drift: Drift, values: NDArray[np.float64], slot_s: float) -> None:
        self._times = np.array([step.at_s for step in drift.steps])
        self._values = values
        self._cycle_s = drift.cycle_s
        self._linear = drift.change == "linear"
        self._slot_s = slot_s

    def between(self, first_slot: int, slots: int) -> NDArray[np.float64]:
        """Return the values in ``slots`` slots from ``first_slot`` on, shape (slots, ...)."""
        # Half a slot in, so that a step at t seconds holds for the whole slot that begins at t.
        time = (np.arange(first_slot, first_slot + slots) + 0.5) * self._slot_s
        if self._cycle_s is not None:
            time = time % self._cycle_s
        step = np.searchsorted(self._times, time, side="right") - 1
        if not self._linear:
            return self._values[step]
        follower = step + 1
        end = np.append(self._times, self._cycle_s if self._cycle_s is not None else np.inf)[follower]
        last = follower == len(self._times)
        follower = np.where(last, 0 if self._cycle_s is not None else step, follower)
        share = (time - self._times[step]) / (end - self._times[step])
        share = share.reshape(-1, *(1,) * (self._values.ndim - 1))
        between: NDArray[np.float64] = self._values[step] * (1 - share) + self._values[follower] * share
        return between
