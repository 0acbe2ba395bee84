"""Measure a model: MACs and crossing tensors per cut, and latency where asked. Reading a profile needs no torch."""

from __future__ import annotations

from splitinfer.profiling.profile import CutRecord, LatencyRecord, Profile, TensorRecord

__all__ = ["CutRecord", "LatencyRecord", "Profile", "TensorRecord"]
