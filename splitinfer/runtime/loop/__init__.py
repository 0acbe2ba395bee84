"""The scheduler in the loop: devices and an edge that spend, slot by slot, what the allocation rules give them.

``device.py`` and ``edge.py`` hold the rules of one slot, ``device_run.py`` and ``edge_run.py`` drive them over real
time and gRPC, ``local_run.py`` starts all of it on one machine. Work enters a queue in the slot that virtual time says,
so a run and :func:`splitinfer.simulation.simulate` of the same scenario and seed count the same slots.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from splitinfer.runtime.loop.device_run import run_device
    from splitinfer.runtime.loop.edge_run import run_edge
    from splitinfer.runtime.loop.local_run import LocalProcesses, run_locally
    from splitinfer.runtime.loop.record import LiveRecord, LiveResult, read_trace
    from splitinfer.runtime.loop.settings import LoopSettings

_HOME_OF = {
    "LiveRecord": "record",
    "LiveResult": "record",
    "LocalProcesses": "local_run",
    "LoopSettings": "settings",
    "read_trace": "record",
    "run_device": "device_run",
    "run_edge": "edge_run",
    "run_locally": "local_run",
}

__all__ = [
    "LiveRecord",
    "LiveResult",
    "LocalProcesses",
    "LoopSettings",
    "read_trace",
    "run_device",
    "run_edge",
    "run_locally",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'splitinfer.runtime.loop' has no attribute {name!r}")
    value = getattr(import_module(f"splitinfer.runtime.loop.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value
