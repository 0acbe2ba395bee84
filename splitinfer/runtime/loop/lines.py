"""What waits in queues of real tasks, as allocation rules see it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from splitinfer.runtime.emulation import Line
from splitinfer.scheduling.rules import Waiting


def waiting_in(lines: Sequence[Line], slot: int) -> Waiting:
    """Return what waits, one entry per line; tasks have an ``arrival_slot``."""
    return Waiting(
        work=np.array([line.work for line in lines]),
        tasks=np.array([line.tasks for line in lines], np.int64),
        head_work=np.array([line.head_work for line in lines]),
        head_arrival_slot=np.array([0 if line.head is None else line.head.arrival_slot for line in lines], np.int64),
        slot=slot,
    )
