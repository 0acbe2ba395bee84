"""``njit`` and ``prange``; without numba the very same functions in plain Python, for a device's few queues.

A device of a live run allocates for a handful of services once a slot, which Python does in well under a millisecond.
Simulation works too, some hundred times slower.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numba import njit, prange
else:
    try:
        from numba import njit, prange
        from numba.core import event as numba_event

        class _FirstCompilation(numba_event.Listener):
            """Says once what the next half minute is spent on. Loops that are on disk already are not compiled."""

            def on_start(self, event: Any) -> None:
                numba_event.unregister("numba:compile", self)
                logging.getLogger("splitinfer.progress").info(
                    "compiling the loops over slots, once after an install or an update ..."
                )

            def on_end(self, event: Any) -> None:
                pass

        numba_event.register("numba:compile", _FirstCompilation())
    except ImportError:
        prange = range

        def njit(**options: Any) -> Callable[[Any], Any]:
            """Return a decorator that leaves a function as it is."""
            return lambda function: function


__all__ = ["njit", "prange"]
