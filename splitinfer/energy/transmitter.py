"""How a radio's power follows what it sends: one model for the paper's radiated power and for radios as measured.

``P = P_c + p / eta + e r`` in every slot in which something is sent and nothing otherwise, with the radiated power p
that carries the rate r, equation (3). The paper counts what is radiated: ``P_c = 0``, ``eta = 1``, ``e = 0``. A radio
with a power amplifier has P_c and eta; radios of phones are measured as watts plus milliwatts per Mbit/s, which is P_c
and e alone (``1 / eta = 0``).

A radio is one *row* ``[P_c, 1 / eta, e]``; functions take rows (M, 3) and an index, as in ``processor``.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Number = TypeVar("Number", float, NDArray[np.float64])

CIRCUIT, PER_RADIATED, PER_BIT = 0, 1, 2

RADIATED_ROW: Floats = np.array([0.0, 1.0, 0.0])
"""The paper's: what is radiated is all that is spent."""


def radio_row(*, circuit_w: float = 0.0, amplifier_efficiency: float = 1.0, bit_j: float = 0.0) -> Floats:
    """Return the row of a radio.

    Args:
        circuit_w: P_c, watts in a slot in which something is sent.
        amplifier_efficiency: eta, radiated over drawn power; ``inf`` where the radiated power is part of the rest.
        bit_j: e, joules per bit (1 mW per Mbit/s is 1e-9 J per bit).
    """
    return np.array([circuit_w, 1.0 / amplifier_efficiency, bit_j])


def transmission_energy_j(slot_s: float, power_w: Number) -> Number:
    """E^t = tau·p, equation (6): joules spent on transmitting in one slot at ``power_w`` watts; shapes broadcast."""
    return slot_s * power_w


def radio_power_w(rows: Any, m: int, radiated_w: float, rate_bps: float) -> float:
    """What the radio draws while it sends at a rate with a radiated power, watts."""
    if rate_bps <= 0.0:
        return 0.0
    return radiated_w * rows[m, PER_RADIATED] + rows[m, PER_BIT] * rate_bps + rows[m, CIRCUIT]  # type: ignore[no-any-return]
