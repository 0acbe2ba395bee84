"""The seam between what chooses cuts and what runs them: one protocol for simulator, training and runtime."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from splitinfer.scheduling.observation import Observation, Setting

Cuts = NDArray[np.int64]


class Policy(Protocol):
    """Chooses the cut of every service once per partition period.

    Attributes:
        name: what tables and plots call it.
    """

    name: str

    def reset(self, setting: Setting, rng: np.random.Generator) -> None:
        """Begin a run.

        Args:
            setting: everything that is known beforehand.
            rng: the policy's own source of randomness; the same seed must give the same cuts.

        Raises:
            InputError: the policy does not fit the setting.
        """

    def cuts(self, observation: Observation) -> Cuts:
        """Return the cut of each service for the coming period, shape (M, N), each in 0..K."""


def is_static(policy: Policy) -> bool:
    """Whether the policy promises, by an attribute ``static``, never to change a cut within a run.

    A simulator may then ask once and run on.
    """
    return bool(getattr(policy, "static", False))


def pareto_cuts(device_work: NDArray[np.float64], bits: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the cuts that no other cut beats in both work on the device and bits to send, in rising order.

    Whatever the frequency and power, the device's energy rises with both, so no other cut can be the cheapest for the
    device. A cut outside may still relieve the edge (it leaves less there than the cut that beats it); k = K, which
    leaves nothing there, is always inside.

    Args:
        device_work: cycles (or MACs, or c^k) on the device per cut, shape (K+1,), rising.
        bits: bits (or elements, or d^k) crossing each cut, shape (K+1,).
    """
    fewest = np.minimum.accumulate(np.concatenate([[np.inf], bits[:-1]]))
    return np.flatnonzero(bits < fewest)
