"""Measure the profiles that ship with splitinfer again: ``python -m splitinfer.profiling.shipped``.

MACs, sizes, and the bits of every codec on scikit-learn's two photographs. They are the same on every machine (what
zstd makes of rounded numbers to within a few bytes); latencies are not.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from splitinfer.data import data_folder
from splitinfer.errors import InputError
from splitinfer.graph.engines import set_threads
from splitinfer.models import card_names
from splitinfer.profiling.measure import profile
from splitinfer.profiling.profile import Profile


def shipped_profile_path(name: str) -> Path:
    """Return where the profile of a shipped card lies."""
    return data_folder("profiles") / f"{name}.json"


def measure_shipped(name: str) -> Profile:
    """Measure what ``profiles/<name>.json`` holds but for its codecs: one image at the card's own size."""
    return profile(name)


def with_codec_bits(measured: Profile) -> Profile:
    """Add the bits of every codec at every cut of a shipped card.

    Raises:
        InputError: scikit-learn, which brings the photographs, is not installed.
    """
    from splitinfer.graph import SplitModel
    from splitinfer.models import load_card, load_model
    from splitinfer.profiling.codecs import described, measure_codec_bits, two_photographs

    photographs = two_photographs()
    if not photographs:
        raise InputError("shipped: the photographs come with scikit-learn, which is not installed")
    card = load_card(measured.model)
    split = SplitModel.capture(load_model(card), card.example_inputs(), name=card.name)
    records = measure_codec_bits(split, card, photographs)
    return replace(measured, codecs=records, codecs_from=described(photographs, card))


def main(argv: Sequence[str] | None = None) -> int:
    """Write the profile of every shipped card, or of the named ones."""
    set_threads(1)  # sums in another order are other bits
    names = list(sys.argv[1:] if argv is None else argv) or card_names()
    data_folder("profiles").mkdir(exist_ok=True)
    for name in names:
        measured = with_codec_bits(measure_shipped(name))
        measured.save(shipped_profile_path(name))
        print(f"{name}: {measured.total_macs:,} MACs, K = {measured.num_cuts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
