"""How long the devices of a run wait for one that is slow, without being silent."""

from __future__ import annotations

from collections.abc import Mapping

_FORGIVEN = 0.5
"""Share of the time for which all may wait for one device without end; a silent one has its lease."""


class Patience:
    """Counts for how long each device alone has held all others up, of late.

    A device that sends each slot just before its lease would end makes time stand still for everybody.

    Args:
        lease_s: waiting beyond half of the time after which a device is lost, seconds; None loses none.
    """

    def __init__(self, lease_s: float | None) -> None:
        self._lease_s = lease_s
        self._waited_s: dict[int, float] = {}
        self._last_s: float | None = None

    def lost_with(self, came_s: Mapping[int, float], due_s: float) -> int | None:
        """Take note of a slot, and return the device for which the others have waited too long, if there is one.

        Args:
            came_s: when the slot's message of each device came.
            due_s: when the slot was over.
        """
        if self._lease_s is None or len(came_s) < 2:
            return None
        *_, before, last = sorted(came_s, key=came_s.__getitem__)
        end_s = max(due_s, came_s[last])
        passed_s = 0.0 if self._last_s is None else end_s - self._last_s
        self._last_s = end_s
        alone_s = {last: end_s - max(due_s, came_s[before])}
        self._waited_s = {
            device: max(0.0, self._waited_s.get(device, 0.0) + alone_s.get(device, 0.0) - _FORGIVEN * passed_s)
            for device in came_s
        }
        if self._waited_s[last] <= self._lease_s:
            return None
        del self._waited_s[last]
        return last
