"""Shared test settings."""

from __future__ import annotations

import logging
import os
import sys
import tempfile

# Tests run in several processes at once: one thread each, also in the servers that they start. Set before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nothing that is kept between starts comes from, or goes to, the folder of who runs the tests.
_CACHE = tempfile.TemporaryDirectory(prefix="splitinfer-tests-", ignore_cleanup_errors=True)
os.environ.setdefault("SPLITINFER_CACHE", _CACHE.name)

# Whether compiled loops are on disk already depends on who ran before; other processes still say that they compile.
logging.getLogger("splitinfer.progress").disabled = True

import pytest
from hypothesis import settings

settings.register_profile("splitinfer", deadline=None, derandomize=True)
settings.load_profile("splitinfer")


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    """Undo what another test in this process said: with more threads kernels add in another order, and bits differ."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
