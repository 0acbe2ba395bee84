"""``njit`` and ``prange``; without numba the very same functions in plain Python, for a device's few queues.

A device of a live run allocates for a handful of services once a slot, which Python does in well under a millisecond.
Simulation works too, some hundred times slower.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numba import njit, prange
else:
    try:
        from numba import njit, prange
    except ImportError:
        prange = range

        def njit(**options: Any) -> Callable[[Any], Any]:
            """Return a decorator that leaves a function as it is."""
            return lambda function: function


__all__ = ["njit", "prange"]
