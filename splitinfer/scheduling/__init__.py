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

__all__ = [
    "SlotAllocator",
    "allocate_edge",
    "allocate_local",
    "allocate_transmission",
    "slot_allocator",
]
