"""splitinfer: split DNN inference that is real.

The names below load on first use, so that ``import splitinfer`` and the command line stay quick.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from splitinfer.errors import SplitInferError
    from splitinfer.graph import Cut, SplitModel, TensorSpec
    from splitinfer.learning import load_policy
    from splitinfer.models import load_model
    from splitinfer.profiling import Profile, profile
    from splitinfer.runtime import EdgeClient

__version__ = "0.1.0"

_HOME_OF = {
    "Cut": "splitinfer.graph",
    "EdgeClient": "splitinfer.runtime",
    "Profile": "splitinfer.profiling",
    "SplitInferError": "splitinfer.errors",
    "SplitModel": "splitinfer.graph",
    "TensorSpec": "splitinfer.graph",
    "load_model": "splitinfer.models",
    "load_policy": "splitinfer.learning",
    "profile": "splitinfer.profiling",
}

__all__ = [
    "Cut",
    "EdgeClient",
    "Profile",
    "SplitInferError",
    "SplitModel",
    "TensorSpec",
    "__version__",
    "load_model",
    "load_policy",
    "profile",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'splitinfer' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if "gymnasium" in sys.modules:
    import_module("splitinfer.learning")  # registers its environments
