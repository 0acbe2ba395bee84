"""Keeps freed message buffers in the process, where the next message finds them.

glibc returns large freed blocks to the kernel and asks for them again, so that every page of every message is faulted
in anew. For messages of 1 to 12 MiB that costs more than sending them (``docs/wire.md`` has figures).
"""

from __future__ import annotations

import ctypes
import sys
import threading

# From malloc.h. The first is the size from which a block is mapped on its own; glibc allows at most 32 MiB.
_M_MMAP_THRESHOLD = -3
_M_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD_BYTES = 32 << 20
_TRIM_THRESHOLD_BYTES = 512 << 20

_lock = threading.Lock()
_tuned: bool | None = None


def tune_allocator() -> bool:
    """Raise glibc's thresholds for this whole process, once; it then keeps up to 512 MiB of freed memory.

    Returns:
        False where the C library is not glibc; nothing is changed there.
    """
    global _tuned
    with _lock:
        if _tuned is None:
            _tuned = _tune()
        return _tuned


def _tune() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - absent from other C libraries
        mallopt = libc.mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes = [ctypes.c_int, ctypes.c_int]
    mallopt.restype = ctypes.c_int
    return bool(mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)) and bool(
        mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES)
    )
