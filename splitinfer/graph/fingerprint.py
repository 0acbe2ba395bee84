"""One hash for architecture and weights, so that device and edge can tell whether they hold the same model."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import fx

_VERSION = b"splitinfer-fingerprint-1"


def architecture_digest(graph: fx.Graph) -> bytes:
    """Hash the operations, their constants and the shapes; node names play no part."""
    numbers = {node: index for index, node in enumerate(graph.nodes)}
    digest = hashlib.sha256(_VERSION)
    for node in graph.nodes:
        args = fx.node.map_arg((node.args, dict(node.kwargs)), lambda source: f"%{numbers[source]}")
        value = node.meta.get("val")
        shape = f"{value.dtype}{tuple(value.shape)}" if isinstance(value, torch.Tensor) else ""
        target = "" if node.op in ("placeholder", "get_attr") else str(node.target)
        digest.update(f"{node.op} {target} {args!r} {shape}\n".encode())
    return digest.digest()


def weights_digest(graph: fx.Graph, weights: dict[str, Any]) -> bytes:
    """Hash the values of all weights in graph order."""
    digest = hashlib.sha256(_VERSION)
    for node in graph.nodes:
        if node.op != "get_attr":
            continue
        weight = weights[node.target]
        if isinstance(weight, torch.Tensor):
            values = weight.detach().cpu().contiguous()
            digest.update(f"{values.dtype}{tuple(values.shape)}".encode())
            digest.update(values.reshape(-1).view(torch.uint8).numpy().data if values.numel() else b"")
        else:
            digest.update(str(weight.code).encode())
    return digest.digest()


def fingerprint(architecture: bytes, weights: bytes, *, optimize: bool) -> str:
    """Combine the digests to the hex string that requests carry; a folded model differs from an unfolded one."""
    mode = b"folded" if optimize else b"exact"
    return hashlib.sha256(architecture + weights + mode).hexdigest()
