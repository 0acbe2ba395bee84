"""A half that answers several requests at once, made from the one that answers one.

A captured graph has one request's sizes in it, so more cannot simply be fed to it. ``torch.vmap`` gives every operation
another dimension in front and says for each what that means; nothing has to be known of the model, and requests cannot
mix. Traced once, what comes out is a plain graph again, which any engine compiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from splitinfer.errors import CaptureError
from splitinfer.graph.aliasing import is_random
from splitinfer.graph.ambient import without_autocast
from splitinfer.graph.refusals import error_text
from splitinfer.graph.rest import Rest

aten = torch.ops.aten

# Layouts are of one request's dimensions. They change no values, and with another dimension in front they mean nothing.
_WITHOUT_LAYOUT: dict[Any, Any] = {
    aten.view.default: aten.reshape.default,
    aten._unsafe_view.default: aten.reshape.default,
}


def batched_graph(
    arguments: Sequence[fx.Node], results: Sequence[fx.Node], weights: dict[str, Any], size: int
) -> tuple[list[fx.Node], tuple[fx.Node, ...], tuple[fx.Node, ...]]:
    """Trace the operations between ``arguments`` and ``results`` for ``size`` requests at once.

    Args:
        arguments, results: nodes of a captured graph.
        weights: of that graph; the new one has the same.
        size: requests in a batch.

    Returns:
        The new graph's nodes in execution order, its arguments and its results, each with the requests in front.

    Raises:
        CaptureError: the operations have no form for several requests (random numbers, sizes that depend on values,
            operators of one's own without a rule for ``torch.vmap``).
    """
    from torch.fx.experimental.proxy_tensor import make_fx  # it brings sympy, half of what import torch takes

    operations = _needed(arguments, results)
    used = [source for node in operations for source in node.all_input_nodes]
    attributes = list(dict.fromkeys(node for node in (*used, *results) if node.op == "get_attr"))
    held = [weights[str(node.target)] for node in attributes]
    if not all(isinstance(weight, torch.Tensor) for weight in held):
        raise CaptureError("it has conditions or loops")
    if any(map(is_random, operations)):
        raise CaptureError("it draws random numbers")
    for node in operations:
        if isinstance(node.target, Rest):
            raise CaptureError(f"it ends in ordinary code ({node.target}), which takes one request")
        if isinstance(node.target, OpOverload) and node.target.namespace != "aten":
            raise CaptureError(f"nothing says what {node.target} means for several requests")

    def run(*tensors: Any) -> tuple[Any, ...]:
        values = dict(zip((*arguments, *attributes), tensors, strict=True))
        for node in operations:
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            target = _WITHOUT_LAYOUT.get(node.target, node.target)
            values[node] = target(*args, **{name: kwargs[name] for name in kwargs if name != "memory_format"})
        return tuple(values[node] for node in results)

    many = torch.vmap(run, in_dims=(0,) * len(arguments) + (None,) * len(attributes))
    try:
        values = [node.meta["val"] for node in arguments]
        stacked = [torch.zeros((size, *value.shape), dtype=value.dtype) for value in values]
        # Operators without a rule of their own run once per request; measuring shows what that costs.
        torch._C._functorch._set_vmap_fallback_warning_enabled(False)  # type: ignore[attr-defined]
        with torch.no_grad(), without_autocast():
            graph = make_fx(torch.func.functionalize(many), tracing_mode="fake")(*stacked, *held).graph
    except Exception as error:
        raise CaptureError(error_text(error).partition("\n")[0]) from error
    graph.eliminate_dead_code()
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    for node, attribute in zip(placeholders[len(arguments) :], attributes, strict=True):
        node.op, node.target, node.args = "get_attr", attribute.target, ()
    order = [node for node in graph.nodes if node.op != "output"]
    if any(isinstance(node.target, OpOverload) and node.target._schema.is_mutable for node in order):
        raise CaptureError("its form for several requests writes to tensors")
    (output,) = (node for node in graph.nodes if node.op == "output")
    return order, tuple(placeholders[: len(arguments)]), tuple(output.args[0])


def _needed(arguments: Sequence[fx.Node], results: Sequence[fx.Node]) -> list[fx.Node]:
    """Return the operations between arguments and results in execution order."""
    given, needed = set(arguments), set()
    stack = [node for node in results if node not in given]
    while stack:
        node = stack.pop()
        if node not in needed and node.op == "call_function":
            needed.add(node)
            stack += [source for source in node.all_input_nodes if source not in given]
    return [node for node in results[0].graph.nodes if node in needed] if results else []
