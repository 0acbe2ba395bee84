"""MACs of one operation of a captured graph: one multiply-accumulate counts as one.

A rule takes the node's argument values (fake tensors in the place of tensors) and its result, and returns MACs. To add
one, decorate a function with ``@mac_rule(torch.ops.aten.my_op)``. Operators without a rule fall back to torch's own
flop counter (two flops are one MAC), directly or through the operators that they are composed of; what neither knows
has no MACs and is listed as uncounted.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload, OpOverloadPacket

from splitinfer.graph.aliasing import declared_view_source, is_composite

aten = torch.ops.aten

MacRule = Callable[..., int | None]
_RULES: dict[OpOverloadPacket, MacRule] = {}


def mac_rule(*packets: OpOverloadPacket) -> Callable[[MacRule], MacRule]:
    """Register a rule ``(result, *args, **kwargs) -> MACs`` for operators; it returns None where it does not apply."""

    def register(rule: MacRule) -> MacRule:
        for packet in packets:
            _RULES[packet] = rule
        return rule

    return register


@mac_rule(aten.conv1d, aten.conv2d, aten.conv3d)
def _convolution(result: Any, image: Any, weight: Any, *_: Any, **__: Any) -> int:
    """Every output element takes (input channels per group) x (kernel) MACs."""
    return int(result.numel() * prod(weight.shape[1:]))


@mac_rule(aten.conv_transpose1d, aten.conv_transpose2d, aten.conv_transpose3d)
def _transposed_convolution(result: Any, image: Any, weight: Any, *_: Any, **__: Any) -> int:
    """Every input element takes (output channels per group) x (kernel) MACs."""
    return int(image.numel() * prod(weight.shape[1:]))


@mac_rule(aten.convolution, aten._convolution)
def _general_convolution(
    result: Any, image: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, *_: Any
) -> int | None:
    return _transposed_convolution(result, image, weight) if transposed else _convolution(result, image, weight)


@mac_rule(aten.linear)
def _linear(result: Any, inputs: Any, weight: Any, *_: Any) -> int:
    return int(result.numel() * weight.shape[-1])


@mac_rule(aten.mm, aten.bmm, aten.matmul, aten.mv, aten.dot, aten.vdot, aten.inner)
def _matmul(result: Any, left: Any, right: Any) -> int:
    """Every output element takes one MAC per contracted element."""
    return int(result.numel() * left.shape[-1])


@mac_rule(aten.addmm, aten.baddbmm, aten.addmv, aten.addbmm)
def _add_matmul(result: Any, bias: Any, left: Any, right: Any, **_: Any) -> int:
    batch = left.shape[0] if left.dim() == 3 and result.dim() == 2 else 1
    return int(batch * result.numel() * left.shape[-1])


@mac_rule(
    aten.scaled_dot_product_attention,
    aten._scaled_dot_product_flash_attention_for_cpu,
    aten._scaled_dot_product_flash_attention,
    aten._scaled_dot_product_efficient_attention,
)
def _attention(result: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Query times key, then weights times value; a causal mask is not subtracted."""
    scores = prod(query.shape[:-1]) * key.shape[-2]
    return int(scores * (query.shape[-1] + value.shape[-1]))


@mac_rule(aten.lstm, aten.gru, aten.rnn_tanh, aten.rnn_relu)
def _recurrent(result: Any, sequence: Any, *args: Any) -> int | None:
    """Every step of every sequence multiplies each weight matrix (input, hidden, projection) once."""
    matrices = next((a for a in args[1:3] if isinstance(a, (list, tuple)) and a and a[0].dim() == 2), None)
    if matrices is None:
        return None
    steps = sequence.numel() // sequence.shape[-1]
    return int(steps * sum(matrix.numel() for matrix in matrices if matrix.dim() == 2))


def node_macs(node: fx.Node) -> int | None:
    """Return the MACs of one operation; None if no rule covers its operator, or they depend on tensors' values."""
    if node.op != "call_function" or node.target is operator.getitem:
        return 0
    if not isinstance(node.target, OpOverload):
        return _nested_macs(node)
    if not all(_has_known_size(value) for value in (node.meta.get("val"), *(_val(s) for s in node.all_input_nodes))):
        return None
    packet = node.target.overloadpacket
    if packet in _RULES:
        args, kwargs = _values(node)
        return _RULES[packet](node.meta["val"], *args, **kwargs)
    if declared_view_source(node) is not None:
        return 0
    from torch.utils.flop_counter import flop_registry

    if packet in flop_registry or is_composite(node.target):
        return _macs_by_torch(node)
    return None


def _macs_by_torch(node: fx.Node) -> int | None:
    """Count with torch's flop counter, which looks through composite operators (einsum, lstm)."""
    from torch._guards import detect_fake_mode
    from torch.utils.flop_counter import FlopCounterMode

    args, kwargs = _values(node)
    fake_mode = detect_fake_mode((args, kwargs))
    if fake_mode is None:
        return None
    with fake_mode, torch.no_grad(), FlopCounterMode(display=False) as counter:
        node.target(*args, **kwargs)  # type: ignore[operator]
    flops = counter.get_total_flops()
    return flops // 2 if flops else None


# Higher-order operators whose one body runs once.
_RUN_ONCE = frozenset(
    (
        "checkpoint",
        "hints_wrapper",
        "invoke_subgraph",
        "strict_mode",
        "tag_activation_checkpoint",
        "wrap",
        "wrap_activation_checkpoint",
        "wrap_with_autocast",
        "wrap_with_set_grad_enabled",
    )
)


def _nested_macs(node: fx.Node) -> int | None:
    """Count a higher-order operator: its bodies, as often as they run; None where that depends on values.

    Of the branches of a condition the larger one counts. Inside ``flex_attention`` only the two products do.
    """
    kind = str(node.target)
    args, _ = _values(node)
    if kind == "flex_attention":
        return _attention(None, *args[:3])
    counts = [sum(node_macs(inner) or 0 for inner in body.graph.nodes) for body in bodies_of(node)]
    if not counts:
        return None
    if kind == "cond":
        return max(counts)
    if kind in _RUN_ONCE:
        return sum(counts)
    # map(body, mapped tensors, ...) and scan(body, initial values, scanned tensors, ...) run once per row.
    rows = args[{"map_impl": 1, "map": 1, "scan": 2}[kind]] if kind in ("map_impl", "map", "scan") else ()
    return counts[0] * int(rows[0].shape[0]) if rows else None


def bodies_of(node: fx.Node) -> list[fx.GraphModule]:
    """Return the graphs that a higher-order operator runs; none for other nodes."""
    bodies = (argument.meta.get("submodule") for argument in node.all_input_nodes)
    return [body for body in bodies if isinstance(body, fx.GraphModule)]


def uncounted_operators(node: fx.Node) -> list[str]:
    """Return the operators of a node without a MAC rule, by name: its own, or those inside its bodies."""
    own = [operator_name(node)] if node_macs(node) is None else []
    return own + [name for body in bodies_of(node) for inner in body.graph.nodes for name in uncounted_operators(inner)]


def operator_name(node: fx.Node) -> str:
    """Return what people call the operator of a node."""
    return node.target.overloadpacket.__name__ if isinstance(node.target, OpOverload) else str(node.target)


def _has_known_size(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_has_known_size, value))
    return not isinstance(value, torch.Tensor) or all(isinstance(size, int) for size in value.shape)


def _val(node: fx.Node) -> Any:
    return node.meta.get("val")


def _values(node: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return fx.node.map_arg(node.args, _val), fx.node.map_arg(node.kwargs, _val)
