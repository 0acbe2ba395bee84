"""Shared test settings."""

from __future__ import annotations

import os

# Tests run in several processes at once: one thread each, also in the servers that they start. Set before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

settings.register_profile("splitinfer", deadline=None, derandomize=True)
settings.load_profile("splitinfer")
