"""What a scenario spends with everything on the devices, or all at the edge: what a live run is compared with."""

from __future__ import annotations

import numpy as np

from splitinfer.scheduling.fixed import FixedCut
from splitinfer.simulation.scenario import Scenario
from splitinfer.simulation.simulate import simulate

MOST_SLOTS = 20_000


def reference_energies_j(scenario: Scenario, slots: int, seed: int) -> dict[str, float]:
    """Return the energy of a slot, summed over the devices, under both extremes, joules.

    Args:
        scenario: the world, without a latency target.
        slots: length of the run that is compared; no more than ``MOST_SLOTS`` are simulated.
        seed: of the run.
    """
    slots = min(slots, MOST_SLOTS)
    policies = {"full local": FixedCut(), "full offload": FixedCut(np.zeros(scenario.active.shape, np.int64))}
    energies = {}
    for name, policy in policies.items():
        result = simulate(scenario, policy, slots, seed)
        energies[name] = float((result.device_energy_local_j + result.device_energy_transmission_j).sum())
    return energies
