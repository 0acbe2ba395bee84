"""What tests wait for."""

from __future__ import annotations

import time
from collections.abc import Callable

LONG_S = 60.0


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)
