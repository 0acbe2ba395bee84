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
from splitinfer.scheduling.price_cut import PriceCut
from splitinfer.scheduling.rules import AllocationRule, DriftPlusPenalty, PriceOfTime, Waiting

__all__ = [
    "AllocationRule",
    "BestStaticCut",
    "DriftPlusPenalty",
    "FixedCut",
    "MyopicCut",
    "Observation",
    "Policy",
    "PriceCut",
    "PriceOfTime",
    "RandomCut",
    "SearchReport",
    "Setting",
    "SlotAllocator",
    "Waiting",
    "allocate_edge",
    "allocate_local",
    "allocate_transmission",
    "pareto_cuts",
    "slot_allocator",
]
