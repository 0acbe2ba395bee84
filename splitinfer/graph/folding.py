"""Fold batch norms into the convolutions before them, as ``torch.nn.utils.fusion`` computes the folded weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.nn.utils.fusion import fuse_conv_bn_weights

from splitinfer.graph.capture import is_item

aten = torch.ops.aten

_CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
_TRANSPOSED = (
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
)


def fold_batch_norms(graph: fx.Graph, weights: dict[str, Any]) -> int:
    """Fold every batch norm whose input is a convolution that nothing else reads; return how many were folded.

    ``graph`` and ``weights`` are changed; the tensors in ``weights`` are not.
    """
    folded = 0
    for node in list(graph.nodes):
        arguments = _batch_norm_arguments(node)
        if arguments is None:
            continue
        source, gamma, beta, mean, variance, epsilon = arguments
        if (
            not _can_absorb(source, weights)
            or not _same_channels(source, node)
            or any(
                parameter is not None and not _is_weight(parameter, weights)
                for parameter in (gamma, beta, mean, variance)
            )
        ):
            continue
        transposed = source.target in _TRANSPOSED
        if transposed and len(source.args) > 6 and source.args[6] != 1:
            continue  # grouped transposed convolutions keep their output channels in another order
        weight_node: Any = source.args[1]
        bias_node: Any = source.args[2] if len(source.args) > 2 else None
        new_weight, new_bias = fuse_conv_bn_weights(
            weights[weight_node.target],
            None if bias_node is None else weights[bias_node.target],
            weights[mean.target],
            weights[variance.target],
            epsilon,
            None if gamma is None else weights[gamma.target],
            None if beta is None else weights[beta.target],
            transpose=transposed,
        )
        with graph.inserting_before(source):
            weight_attribute = _new_weight(graph, weights, f"{source.name}_weight", new_weight)
            bias_attribute = _new_weight(graph, weights, f"{source.name}_bias", new_bias)
        source.args = (source.args[0], weight_attribute, bias_attribute, *source.args[3:])
        result = node
        if isinstance(node.meta.get("val"), (tuple, list)):
            (result,) = node.users
        result.replace_all_uses_with(source)
        if result is not node:
            graph.erase_node(result)
        graph.erase_node(node)
        folded += 1
    if folded:
        graph.eliminate_dead_code()
        used = {node.target for node in graph.nodes if node.op == "get_attr"}
        for name in set(weights) - used:
            del weights[name]
    return folded


def _batch_norm_arguments(node: fx.Node) -> tuple[fx.Node, Any, Any, Any, Any, float] | None:
    """Return (input, weight, bias, mean, variance, eps) of a batch norm in evaluation mode, None for other nodes."""
    if node.target == aten.batch_norm.default:
        source, gamma, beta, mean, variance, training, _, epsilon, *_ = node.args
        if training or mean is None or variance is None:
            return None
    elif node.target == aten._native_batch_norm_legit_no_training.default:
        source, gamma, beta, mean, variance, _, epsilon = node.args
        users = list(node.users)
        if len(users) != 1 or not is_item(users[0]) or users[0].args[1] != 0:
            return None
    else:
        return None
    assert isinstance(source, fx.Node)
    assert isinstance(epsilon, float)
    return source, gamma, beta, mean, variance, epsilon


def _can_absorb(node: fx.Node, weights: dict[str, Any]) -> bool:
    if node.target not in (*_CONVOLUTIONS, *_TRANSPOSED) or len(node.users) != 1:
        return False
    bias = node.args[2] if len(node.args) > 2 else None
    return _is_weight(node.args[1], weights) and (bias is None or _is_weight(bias, weights))


def _same_channels(convolution: fx.Node, norm: fx.Node) -> bool:
    """Whether a batch norm, whose channels are dimension 1, has those of the convolution: not without a batch."""
    result, weight = convolution.meta["val"], convolution.args[1]
    assert isinstance(weight, fx.Node)
    normed = norm.meta["val"][0] if isinstance(norm.meta["val"], (tuple, list)) else norm.meta["val"]
    held = [argument.meta["val"] for argument in (weight, *norm.args[1:5]) if isinstance(argument, fx.Node)]
    is_precise = result.dtype in (torch.float32, torch.float64)  # folded weights are rounded once more
    return (
        is_precise
        and result.dim() == weight.meta["val"].dim()
        and all(value.dtype == result.dtype for value in (normed, *held))
    )


def _is_weight(argument: Any, weights: dict[str, Any]) -> bool:
    return isinstance(argument, fx.Node) and argument.op == "get_attr" and argument.target in weights


def _new_weight(graph: fx.Graph, weights: dict[str, Any], name: str, tensor: torch.Tensor) -> fx.Node:
    while name in weights:
        name += "_folded"
    weights[name] = tensor.detach()
    node = graph.create_node("get_attr", name)
    node.meta["val"] = tensor
    return node
