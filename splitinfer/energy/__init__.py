"""Energy of a device: the paper's model, and (apart from it) meters and calibration."""

from __future__ import annotations

from splitinfer.energy.model import local_energy_j, transmission_energy_j

__all__ = ["local_energy_j", "transmission_energy_j"]
