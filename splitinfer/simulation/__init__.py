"""Simulate a world of devices, services, radio and edge: scenario in, energies, queues and latencies out.

Needs no torch: services come in as profiles.
"""

from __future__ import annotations

from splitinfer.simulation.result import RunTrace, SimulationResult, Utilisation
from splitinfer.simulation.scenario import Scenario
from splitinfer.simulation.scenario_file import find_scenario, preset_names, with_settings
from splitinfer.simulation.search import find_best_static
from splitinfer.simulation.simulate import simulate, simulate_batch
from splitinfer.simulation.stability import StabilityReport

__all__ = [
    "RunTrace",
    "Scenario",
    "SimulationResult",
    "StabilityReport",
    "Utilisation",
    "find_best_static",
    "find_scenario",
    "preset_names",
    "simulate",
    "simulate_batch",
    "with_settings",
]
