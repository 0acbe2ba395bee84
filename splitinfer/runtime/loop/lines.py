"""What waits in queues of real tasks, as allocation rules see it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from splitinfer.runtime.emulation import Line
from splitinfer.scheduling.rules import Waiting


def waiting_in(lines: Sequence[Line], slot: int) -> Waiting:
    """Return what waits, one entry per line; tasks have an ``arrival_slot``."""
    work, tasks, head_work, heads = zip(*lines, strict=True)
    return Waiting(
        work=np.array(work),
        tasks=np.array(tasks, np.int64),
        head_work=np.array(head_work),
        head_arrival_slot=np.array([0 if head is None else head.arrival_slot for head in heads], np.int64),
        slot=slot,
    )
