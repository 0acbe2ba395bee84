"""Capture a model, find its cut points, run its halves. Needs torch and nothing else of splitinfer."""

from __future__ import annotations

from splitinfer.graph.macs import mac_rule
from splitinfer.graph.specs import Cut, TensorSpec
from splitinfer.graph.split_model import SplitModel

__all__ = ["Cut", "SplitModel", "TensorSpec", "mac_rule"]
