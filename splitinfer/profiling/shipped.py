"""Measure the profiles that ship with splitinfer again: ``python -m splitinfer.profiling.shipped``.

MACs and sizes only. They are the same on every machine; latencies are not.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from splitinfer.data import data_folder
from splitinfer.models import card_names
from splitinfer.profiling.measure import profile
from splitinfer.profiling.profile import Profile


def shipped_profile_path(name: str) -> Path:
    """Return where the profile of a shipped card lies."""
    return data_folder("profiles") / f"{name}.json"


def measure_shipped(name: str) -> Profile:
    """Measure what ``profiles/<name>.json`` holds: one image at the card's own size."""
    return profile(name)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the profile of every shipped card, or of the named ones."""
    names = list(sys.argv[1:] if argv is None else argv) or card_names()
    data_folder("profiles").mkdir(exist_ok=True)
    for name in names:
        measured = measure_shipped(name)
        measured.save(shipped_profile_path(name))
        print(f"{name}: {measured.total_macs:,} MACs, K = {measured.num_cuts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
