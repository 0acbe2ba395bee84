"""Rewrite a functional graph so that every operation depends on values alone, wherever its arguments come from.

A tensor that has crossed a wire, or that a caller gives, may lie in memory otherwise than the one seen at capture.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from splitinfer.errors import CaptureError
from splitinfer.graph.aliasing import declared_view_source
from splitinfer.graph.refusals import source_line

aten = torch.ops.aten

_CHECKS = (
    aten._assert_tensor_metadata.default,
    aten._assert_scalar.default,
    aten._assert_async.msg,
    aten.sym_constrain_range.default,
    aten.sym_constrain_range_for_size.default,
)
_OF_STORAGE = (aten.as_strided_.default, aten.as_strided_scatter.default, aten.as_strided_copy.default)


def depend_on_values_alone(graph: fx.Graph, name: str) -> None:
    """Rewrite the graph in place; ``name`` is the model's, for refusals.

    - Copies are dropped, which a functional graph has no need of, unless they change the layout or are returned.
    - ``view`` needs the strides that were seen at capture; ``reshape`` gives the same values from any.
    - ``as_strided`` is made to read a copy that lies in memory as its argument did at capture.
    - A weight that is returned is returned as a copy, so that a caller who writes to the answer changes no weight.
    - Tensors made from nothing get the dtype of the capture, and not torch's default at the time of a request.
    """
    for node in list(graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, OpOverload):
            continue
        if node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default
        elif node.target == aten.lift_fresh_copy.default or (
            node.target == aten.clone.default and "memory_format" not in node.kwargs
        ):
            _drop_copy(graph, node)
        elif node.target in _CHECKS:
            if not node.users:
                graph.erase_node(node)
        elif node.target == aten.as_strided.default:
            _read_a_copy(graph, node, name)
        elif node.target in _OF_STORAGE:
            raise _refusal(node, name)
        elif not node.all_input_nodes:
            _fix_dtype(node)
    _return_no_weights(graph)


def _return_no_weights(graph: fx.Graph) -> None:
    weights = {
        node.meta["val"].untyped_storage()._cdata
        for node in graph.nodes
        if node.op == "get_attr" and isinstance(node.meta.get("val"), torch.Tensor)
    }
    output = next(iter(reversed(graph.nodes)))
    for result in output.all_input_nodes:
        value = result.meta["val"]
        is_expanded = 0 in value.stride()  # torch itself refuses writes to those
        if value.untyped_storage()._cdata in weights and not is_expanded:
            with graph.inserting_before(output):
                copied = _call(graph, aten.clone.default, (result,))
            output.replace_input_with(result, copied)


def _drop_copy(graph: fx.Graph, node: fx.Node) -> None:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    is_returned = any(user.op == "output" for user in node.users)
    if not is_returned and node.meta["val"].stride() == source.meta["val"].stride():
        node.replace_all_uses_with(source)
        graph.erase_node(node)


def _fix_dtype(node: fx.Node) -> None:
    value = node.meta.get("val")
    takes_dtype = any(argument.name == "dtype" for argument in node.target._schema.arguments)  # type: ignore[union-attr]
    if isinstance(value, torch.Tensor) and takes_dtype and node.kwargs.get("dtype") is None:
        node.kwargs = {**node.kwargs, "dtype": value.dtype}


def _read_a_copy(graph: fx.Graph, node: fx.Node, name: str) -> None:
    """Replace ``as_strided(x)`` by one that reads the elements of x's memory in the order of the capture."""
    source, size, stride, *rest = node.args
    assert isinstance(source, fx.Node)
    offset = rest[0] if rest else node.kwargs.get("storage_offset")
    if offset is None:
        offset = source.meta["val"].storage_offset()
    root = source
    while (viewed := declared_view_source(root)) is not None and _share_memory(viewed, root):
        root = viewed
    value = root.meta["val"]
    if (
        not isinstance(value, torch.Tensor)
        or value.storage_offset()
        or not torch._prims_common.is_non_overlapping_and_dense_or_false(value)
    ):
        raise _refusal(node, name)
    order = sorted(range(value.dim()), key=lambda dim: (value.stride(dim), value.shape[dim]), reverse=True)
    with graph.inserting_before(node):
        turned = _call(graph, aten.permute.default, (root, order))
        flat = _call(graph, aten.reshape.default, (turned, [-1]))
        copied = _call(graph, aten.clone.default, (flat,), {"memory_format": torch.contiguous_format})
    node.args = (copied, size, stride, offset)
    node.kwargs = {}


def _share_memory(one: fx.Node, other: fx.Node) -> bool:
    first, second = one.meta.get("val"), other.meta.get("val")
    if not isinstance(first, torch.Tensor) or not isinstance(second, torch.Tensor):
        return True  # one of several views made at once
    return bool(first.untyped_storage()._cdata == second.untyped_storage()._cdata)


def _call(graph: fx.Graph, target: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> fx.Node:
    node = graph.call_function(target, args, kwargs or {})
    values = fx.node.map_arg(args, lambda source: source.meta["val"])
    with values[0].fake_mode, torch.no_grad():
        node.meta["val"] = target(*values, **(kwargs or {}))
    return node


def _refusal(node: fx.Node, name: str) -> CaptureError:
    return CaptureError(
        f"cannot capture {name}{source_line(node)}: {node.target} reads memory beyond the values of its tensor, which "
        "does not cross a cut; use slices, unfold or gather"
    )
