"""``njit`` and ``prange``; without numba the very same functions in plain Python, for a device's few queues.

A device of a live run allocates for a handful of services once a slot, which Python does in well under a millisecond.
Simulation works too, some hundred times slower.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

_log = logging.getLogger("splitinfer.progress")

if TYPE_CHECKING:
    from numba import njit, prange
else:
    try:
        from numba import njit, prange
        from numba.core import event as numba_event

        class _Compilation(numba_event.Listener):
            """Says once what the next half minute is spent on, and keeps a Ctrl-C until it is over.

            Loops that are on disk already are not compiled. An interrupt inside LLVM's callbacks would be lost.
            """

            def __init__(self) -> None:
                self._depth = 0
                self._said = self._holds = self._interrupted = False

            def on_start(self, event: Any) -> None:
                if not self._said:
                    self._said = True
                    _log.info(
                        "compiling loops over slots, up to a minute; once for each kind of run after an install or an "
                        "update ..."
                    )
                if threading.current_thread() is not threading.main_thread():
                    return
                if self._depth == 0 and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                    self._holds, self._interrupted = True, False
                    signal.signal(signal.SIGINT, self._note)
                self._depth += 1

            def on_end(self, event: Any) -> None:
                if threading.current_thread() is not threading.main_thread():
                    return
                self._depth -= 1
                if self._depth or not self._holds:
                    return
                self._holds = False
                signal.signal(signal.SIGINT, signal.default_int_handler)
                if self._interrupted:
                    raise KeyboardInterrupt

            def _note(self, number: int, frame: Any) -> None:
                self._interrupted = True
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                _log.info("interrupted; this ends when the loops are compiled, or at once with another Ctrl-C")

        numba_event.register("numba:compile", _Compilation())
    except ImportError:
        prange = range

        def njit(**options: Any) -> Callable[[Any], Any]:
            """Return a decorator that leaves a function as it is."""
            return lambda function: function


__all__ = ["njit", "prange"]
