"""Policies that look at nothing: one cut for ever, or any cut at random."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from splitinfer.scheduling.observation import Observation, Setting
from splitinfer.scheduling.policy import Cuts, checked_cuts


class FixedCut:
    """Fix-Cov: the same cuts all the time.

    Args:
        cuts: one cut per service, the same on every device; or an (M, N) array; or None for all on the device.
        name: what tables call it.
    """

    static = True

    def __init__(self, cuts: ArrayLike | None = None, *, name: str = "fixed") -> None:
        self.name = name
        self._wanted = None if cuts is None else np.asarray(cuts)
        self._cuts: Cuts | None = None

    def reset(self, setting: Setting, rng: np.random.Generator) -> None:
        self._cuts = setting.num_cuts if self._wanted is None else checked_cuts(self._wanted, setting)

    def cuts(self, observation: Observation) -> Cuts:
        assert self._cuts is not None, "reset comes first"
        return self._cuts


class RandomCut:
    """Random-Cov: every cut 0..K equally likely, drawn anew for each service and period."""

    name = "random"

    def reset(self, setting: Setting, rng: np.random.Generator) -> None:
        self._highest = setting.num_cuts
        self._rng = rng

    def cuts(self, observation: Observation) -> Cuts:
        return self._rng.integers(0, self._highest, endpoint=True)
