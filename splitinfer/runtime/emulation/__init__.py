"""What a machine without a settable clock and without a radio lacks, behind interfaces that real hardware can fill.

:class:`Clock` is a processor whose frequency is set per slot, :class:`Link` a transmitter whose rate is. The emulated
ones pace real work and real bytes by virtual cycles and bits. ``run_device(make_clock=, make_link=)`` and
``run_edge(make_clock=)`` take others.
"""

from __future__ import annotations

from splitinfer.runtime.emulation.clock import Clock, EmulatedClock, Job, MakeClock, Shortfall
from splitinfer.runtime.emulation.link import EmulatedLink, Link, MakeLink, Piece
from splitinfer.runtime.emulation.work_queue import Line, Served, WorkQueue

__all__ = [
    "Clock",
    "EmulatedClock",
    "EmulatedLink",
    "Job",
    "Line",
    "Link",
    "MakeClock",
    "MakeLink",
    "Piece",
    "Served",
    "Shortfall",
    "WorkQueue",
]
