"""Scheduling: which cut each service runs at, and what frequency and power to spend on it.

Pure numbers: nothing here knows of gRPC, of torch or of the simulator.
"""

from __future__ import annotations

from splitinfer.scheduling.allocation import (
    SlotAllocator,
    allocate_edge,
    allocate_local,
    allocate_transmission,
    slot_allocator,
)
from splitinfer.scheduling.best_static import BestStaticCut, SearchReport
from splitinfer.scheduling.fixed import FixedCut, RandomCut
from splitinfer.scheduling.myopic import MyopicCut
from splitinfer.scheduling.observation import Observation, Setting
from splitinfer.scheduling.policy import Policy, pareto_cuts

__all__ = [
    "BestStaticCut",
    "FixedCut",
    "MyopicCut",
    "Observation",
    "Policy",
    "RandomCut",
    "SearchReport",
    "Setting",
    "SlotAllocator",
    "allocate_edge",
    "allocate_local",
    "allocate_transmission",
    "pareto_cuts",
    "slot_allocator",
]
