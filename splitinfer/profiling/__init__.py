"""Measure a model: MACs and crossing tensors per cut, and latency where asked. Reading a profile needs no torch."""

from __future__ import annotations

from splitinfer.profiling.profile import (  # isort: skip
    CodecRecord,
    CutRecord,
    LatencyRecord,
    Profile,
    TensorRecord,
    WeightsRecord,
)

# After the line above, so that the name means the function and not the submodule.
from splitinfer.profiling.measure import profile  # isort: skip

__all__ = ["CodecRecord", "CutRecord", "LatencyRecord", "Profile", "TensorRecord", "WeightsRecord", "profile"]
