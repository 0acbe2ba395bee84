"""One hash for architecture, weights and cuts, so that device and edge can tell whether they hold the same model.

The cuts belong to it because a request names its cut by number: two ends that count MACs by other rules, or find other
places to cut, would otherwise mean different operations by one number, and compute wrong answers without a word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

_VERSION = b"splitinfer-fingerprint-2"


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


def cuts_digest(
    graph: fx.Graph, operations: Sequence[fx.Node], positions: Sequence[int], crossings: Sequence[Sequence[fx.Node]]
) -> bytes:
    """Hash which operations stand before each cut and which values cross it.

    Args:
        graph: the graph that is cut, after folding.
        operations: its operations in order of execution.
        positions: per cut 0..K, how many of them belong to the head.
        crossings: per cut, the nodes that cross, in the order in which they are sent.
    """
    numbers = {node: index for index, node in enumerate(graph.nodes)}
    digest = hashlib.sha256(_VERSION)
    digest.update(repr([numbers[node] for node in operations]).encode())
    for position, nodes in zip(positions, crossings, strict=True):
        digest.update(f"{position} {[numbers[node] for node in nodes]}\n".encode())
    return digest.digest()


def fingerprint(architecture: bytes, weights: bytes, cuts: bytes, *, optimize: bool) -> str:
    """Combine the digests to the hex string that requests carry; a folded model differs from an unfolded one."""
    mode = b"folded" if optimize else b"exact"
    return hashlib.sha256(architecture + weights + cuts + mode).hexdigest()
