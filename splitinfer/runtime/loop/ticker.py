"""Slot boundaries on the wall clock, and an honest count of those that were missed."""

from __future__ import annotations

import time

SWITCH_S = 0.0005
"""How often Python's threads take turns. Its default of 5 ms is half a slot, in which a head's thread would keep the
slot's thread from beginning."""


class Ticker:
    """Waits for the beginning of each slot.

    Args:
        start_s: beginning of slot 0, on ``time.perf_counter``.
        slot_wall_s: length of a slot on the wall clock.
        before: a ticker that this one goes on from: its counts are taken over.

    Attributes:
        overruns: slots whose work was done only after their end.
        worst_lag_s: by how much at most, seconds of the wall clock.
    """

    def __init__(self, start_s: float, slot_wall_s: float, before: Ticker | None = None) -> None:
        self.overruns: int = 0 if before is None else before.overruns
        self.worst_lag_s: float = 0.0 if before is None else before.worst_lag_s
        self._start_s = start_s
        self._slot_wall_s = slot_wall_s

    def begins_s(self, slot: int) -> float:
        """Return when a slot begins, on ``time.perf_counter``."""
        return self._start_s + slot * self._slot_wall_s

    def wait(self, slot: int) -> None:
        """Wait for a slot's beginning; returns at once when it is past."""
        left_s = self.begins_s(slot) - time.perf_counter()
        if left_s > 0:
            time.sleep(left_s)

    def done(self, slot: int) -> None:
        """Note that the work of a slot's beginning is done."""
        lag_s = time.perf_counter() - self.begins_s(slot + 1)
        if lag_s > 0:
            self.overruns += 1
            self.worst_lag_s = max(self.worst_lag_s, lag_s)
