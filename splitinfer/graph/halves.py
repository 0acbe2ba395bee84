"""Turn a range of operations into a Python function that runs them on the model's shared weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from splitinfer.graph.aliasing import allocates, possible_alias_sources

aten = torch.ops.aten

Half = Callable[..., tuple[torch.Tensor, ...]]

# Elementwise operations and the in-place twin that gives the same bits. Two-argument ones may also write to the second.
_IN_PLACE: dict[OpOverload, OpOverload] = {
    aten.relu.default: aten.relu_.default,
    aten.hardtanh.default: aten.hardtanh_.default,
    aten.hardswish.default: aten.hardswish_.default,
    aten.hardsigmoid.default: aten.hardsigmoid_.default,
    aten.silu.default: aten.silu_.default,
    aten.sigmoid.default: aten.sigmoid_.default,
    aten.gelu.default: aten.gelu_.default,
    aten.leaky_relu.default: aten.leaky_relu_.default,
    aten.elu.default: aten.elu_.default,
    aten.tanh.default: aten.tanh_.default,
    aten.add.Tensor: aten.add_.Tensor,
    aten.mul.Tensor: aten.mul_.Tensor,
    aten.sub.Tensor: aten.sub_.Tensor,
    aten.div.Tensor: aten.div_.Tensor,
}
_COMMUTATIVE = (aten.add.Tensor, aten.mul.Tensor)


def build_half(
    arguments: Sequence[fx.Node], results: Sequence[fx.Node], allowed: Iterable[fx.Node], weights: SimpleNamespace
) -> Half:
    """Compile the operations that lead from ``arguments`` to ``results``.

    Only the operations that the results need are run, in the captured order. Temporary tensors that nothing else reads
    are overwritten by elementwise operations; arguments, weights and results never are.

    Args:
        arguments: nodes whose tensors the caller passes.
        results: nodes whose tensors are returned.
        allowed: nodes of the captured graph in execution order (constants included).
        weights: namespace that holds every get_attr target.
    """
    given = set(arguments)
    needed: set[fx.Node] = set()
    stack = [node for node in results if node not in given]
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack += [source for source in node.all_input_nodes if source not in given and source not in needed]

    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for index, node in enumerate(arguments):
        copies[node] = graph.placeholder(f"tensor_{index}")
    for node in allowed:
        if node in needed:
            copies[node] = graph.node_copy(node, copies.__getitem__)
            if node.op == "get_attr":
                copies[node].meta = {"val": node.meta.get("val")}
    graph.output(tuple(copies[node] for node in results))
    _reuse_temporaries(graph)
    code = graph.python_code("self")
    scope: dict[str, Any] = dict(code.globals)
    exec(code.src, scope)
    forward = scope["forward"]

    def half(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        result: tuple[torch.Tensor, ...] = forward(weights, *tensors)
        return result

    return half


def _reuse_temporaries(graph: fx.Graph) -> None:
    """Write the result of an elementwise operation over its argument where nothing else can see that."""
    position = {node: index for index, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if node.op != "call_function" or node.target not in _IN_PLACE or not isinstance(node.args[0], fx.Node):
            continue
        if _is_last_reader(node, node.args[0], position):
            node.target = _IN_PLACE[node.target]
        elif (
            node.target in _COMMUTATIVE
            and not node.kwargs
            and isinstance(node.args[1], fx.Node)
            and _is_last_reader(node, node.args[1], position)
        ):
            node.args = (node.args[1], node.args[0])
            node.target = _IN_PLACE[node.target]


def _is_last_reader(node: fx.Node, temporary: fx.Node, position: dict[fx.Node, int]) -> bool:
    mine, theirs = node.meta.get("val"), temporary.meta.get("val")
    if not isinstance(mine, torch.Tensor) or not isinstance(theirs, torch.Tensor):
        return False
    if mine.shape != theirs.shape or mine.dtype != theirs.dtype or not _owns_its_storage(temporary):
        return False
    here = position[node]
    for reader in temporary.users:
        if reader is node:
            continue
        if position[reader] > here or temporary in possible_alias_sources(reader):
            return False
    return True


def _owns_its_storage(node: fx.Node) -> bool:
    return allocates(node) or node.target in _IN_PLACE.values()
