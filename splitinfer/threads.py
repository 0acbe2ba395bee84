"""How many threads one operation may have. Needs neither torch nor another engine."""

from __future__ import annotations

from splitinfer.errors import InputError

MAX_THREADS = 1024
"""Most threads of one operation. Engines start as many as they are told, without a word."""


def checked_threads(threads: int) -> int:
    """Return ``threads``.

    Raises:
        InputError: it is not a whole number in 1..MAX_THREADS.
    """
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= MAX_THREADS:
        raise InputError(f"threads must be a whole number in 1..{MAX_THREADS}, not {threads!r}")
    return threads
