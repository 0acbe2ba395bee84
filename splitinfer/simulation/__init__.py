"""Simulate a world of devices, services, radio and edge: scenario in, energies, queues and latencies out.

Needs no torch: services come in as profiles.
"""

from __future__ import annotations

from splitinfer.simulation.bound import Bound, Cost, cost_of, lower_bound
from splitinfer.simulation.result import RunTrace, SimulationResult, Utilisation
from splitinfer.simulation.scenario import Scenario
from splitinfer.simulation.scenario_file import find_scenario, preset_names, with_settings
from splitinfer.simulation.search import find_best_static
from splitinfer.simulation.simulate import simulate, simulate_batch
from splitinfer.simulation.stability import StabilityReport

__all__ = [
    "Bound",
    "Cost",
    "RunTrace",
    "Scenario",
    "SimulationResult",
    "StabilityReport",
    "Utilisation",
    "cost_of",
    "find_best_static",
    "find_scenario",
    "lower_bound",
    "preset_names",
    "simulate",
    "simulate_batch",
    "with_settings",
]
