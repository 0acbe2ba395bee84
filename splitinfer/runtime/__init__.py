"""The two ends at run time: the edge server, the client, and the process that holds a server.

Names load on first use, since gRPC and torch take a while.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from splitinfer.runtime.async_client import AsyncEdgeClient
    from splitinfer.runtime.client import EdgeClient
    from splitinfer.runtime.exchange import ModelId
    from splitinfer.runtime.process import EdgeProcess
    from splitinfer.runtime.result import InferenceResult, Timing
    from splitinfer.runtime.server import EdgeServer
    from splitinfer.runtime.settings import ClientSettings, ServerSettings

_HOME_OF = {
    "AsyncEdgeClient": "async_client",
    "ClientSettings": "settings",
    "EdgeClient": "client",
    "EdgeProcess": "process",
    "EdgeServer": "server",
    "InferenceResult": "result",
    "ModelId": "exchange",
    "ServerSettings": "settings",
    "Timing": "result",
}

__all__ = [
    "AsyncEdgeClient",
    "ClientSettings",
    "EdgeClient",
    "EdgeProcess",
    "EdgeServer",
    "InferenceResult",
    "ModelId",
    "ServerSettings",
    "Timing",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'splitinfer.runtime' has no attribute {name!r}")
    value = getattr(import_module(f"splitinfer.runtime.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value
