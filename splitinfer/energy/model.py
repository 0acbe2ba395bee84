"""The device's energy per slot, equations (5) and (6). Only the device's energy counts; the edge is on mains.

The functions work on numbers and on numpy arrays alike (shapes broadcast), and the compiled slot loop compiles these
very functions, so that there is one formula.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", float, NDArray[np.float64])


def local_energy_j(slot_s: float, energy_coefficient: Number, frequency_hz: Number) -> Number:
    """E^l = tau·delta·f³, equation (5).

    Args:
        slot_s: tau, seconds.
        energy_coefficient: delta, W·s³.
        frequency_hz: total frequency of the device, the sum of f^l over its services, cycles/s.

    Returns:
        Joules spent on computing in one slot.
    """
    return slot_s * energy_coefficient * (frequency_hz * frequency_hz * frequency_hz)


def transmission_energy_j(slot_s: float, power_w: Number) -> Number:
    """E^t = tau·p, equation (6): joules spent on transmitting in one slot at ``power_w`` watts."""
    return slot_s * power_w
