"""Small scenarios whose numbers can be worked out by hand."""

from __future__ import annotations

from splitinfer.profiling.profile import CutRecord, Profile, TensorRecord
from splitinfer.simulation import Scenario


def profile_from(name, macs, elements):
    """A profile with ``macs[k]`` before cut k and ``elements[k]`` crossing it."""
    cuts = tuple(
        CutRecord(
            index=k,
            name=f"layer{k}",
            output_shape=(1, max(1, crossing)),
            macs_before=before,
            crossing=(TensorRecord("x", (crossing,), "float32"),) if crossing else (),
        )
        for k, (before, crossing) in enumerate(zip(macs, elements, strict=True))
    )
    return Profile(name, cuts[0].crossing, 0, macs[-1], cuts)


BIG = profile_from("big", (0, 400_000_000, 900_000_000, 1_000_000_000), (40_000, 60_000, 8_000, 0))
LITTLE = profile_from("little", (0, 30_000_000, 100_000_000), (20_000, 5_000, 0))


def small_scenario(**changes):
    fields = {"name": "small", "services": (BIG, LITTLE), "num_devices": 2, "arrival_rate_hz": 1.0}
    return Scenario(**(fields | changes))
