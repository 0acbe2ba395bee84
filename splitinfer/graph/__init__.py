"""Capture a model, find its cut points, run its halves. Needs torch and nothing else of splitinfer.

Names load on first use, since torch takes a while.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from splitinfer.graph.macs import mac_rule
    from splitinfer.graph.specs import Cut, TensorSpec
    from splitinfer.graph.split_model import SplitModel

_HOME_OF = {"Cut": "specs", "SplitModel": "split_model", "TensorSpec": "specs", "mac_rule": "macs"}

__all__ = ["Cut", "SplitModel", "TensorSpec", "mac_rule"]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'splitinfer.graph' has no attribute {name!r}")
    value = getattr(import_module(f"splitinfer.graph.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value
