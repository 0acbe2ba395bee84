"""Energy of a device: how power follows frequency and rate, and (apart from it) meters and calibration."""

from __future__ import annotations

from splitinfer.energy.processor import local_energy_j
from splitinfer.energy.transmitter import transmission_energy_j

__all__ = ["local_energy_j", "transmission_energy_j"]
