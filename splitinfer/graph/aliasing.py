"""Which operations return a view of an argument, which surely allocate, and which cannot be told from their schema."""

from __future__ import annotations

import operator
from collections.abc import Iterator

import torch
from torch import fx
from torch._ops import OpOverload

aten = torch.ops.aten

# Composite operators need not declare aliases in their schema (dropout in evaluation mode returns its input, say).
# These composites always allocate their result.
_FRESH_COMPOSITES = frozenset(
    {
        aten.conv1d,
        aten.conv2d,
        aten.conv3d,
        aten.conv_transpose1d,
        aten.conv_transpose2d,
        aten.conv_transpose3d,
        aten.linear,
        aten.matmul,
        aten.batch_norm,
        aten.layer_norm,
        aten.group_norm,
        aten.instance_norm,
        aten.max_pool1d,
        aten.max_pool2d,
        aten.max_pool3d,
        aten.avg_pool1d,
        aten.adaptive_avg_pool1d,
        aten.adaptive_avg_pool2d,
        aten.adaptive_avg_pool3d,
        aten.softmax,
        aten.log_softmax,
        aten.scaled_dot_product_attention,
        aten.upsample_nearest2d,
        aten.upsample_bilinear2d,
        aten.relu6,
        aten.embedding,
        aten.lstm,
        aten.gru,
        aten.rnn_tanh,
        aten.rnn_relu,
    }
)


def is_composite(op: OpOverload) -> bool:
    """True when the operator is defined by other operators and its schema need not tell its aliases."""
    name = op._schema.name + (f".{op._schema.overload_name}" if op._schema.overload_name else "")
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeImplicitAutograd"))


def declared_view_source(node: fx.Node) -> fx.Node | None:
    """Return the tensor that the node is a view (or an item of a tuple of views) of by its schema, else None.

    Reshape-like operators count too: where they have to copy, the values are the same all the same.
    """
    if node.op != "call_function":
        return None
    if node.target is operator.getitem:
        source = node.args[0]
        if not isinstance(source, fx.Node):
            return None
        return source if declared_view_source(source) is not None else None
    if not isinstance(node.target, OpOverload):
        return None
    schema = node.target._schema
    if not any(ret.alias_info is not None for ret in schema.returns):
        return None
    for index, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and not argument.alias_info.is_write and index < len(node.args):
            source = node.args[index]
            return source if isinstance(source, fx.Node) else None
    return None


def allocates(node: fx.Node) -> bool:
    """True when the result of the node surely shares storage with no other value."""
    if node.op != "call_function" or not isinstance(node.target, OpOverload):
        return False
    if any(ret.alias_info is not None for ret in node.target._schema.returns):
        return False
    return node.target.overloadpacket in _FRESH_COMPOSITES or not is_composite(node.target)


def possible_alias_sources(node: fx.Node) -> Iterator[fx.Node]:
    """Yield every argument whose storage the result of the node may share."""
    if allocates(node):
        return
    if node.target is operator.getitem and isinstance(node.args[0], fx.Node) and allocates(node.args[0]):
        # An item of a freshly made tuple; it shares storage with the tuple node only.
        yield node.args[0]
        return
    yield from node.all_input_nodes


def is_random(node: fx.Node) -> bool:
    """True when every run of the node draws random numbers."""
    for source in node.all_input_nodes:
        body = source.meta.get("submodule")
        if isinstance(body, fx.GraphModule) and any(map(is_random, body.graph.nodes)):
            return True
    if not isinstance(node.target, OpOverload) or torch.Tag.nondeterministic_seeded not in node.target.tags:
        return False
    given = dict(zip((argument.name for argument in node.target._schema.arguments), node.args, strict=False))
    given.update(node.kwargs)
    # Attention, recurrent layers and dropouts draw only where they drop something.
    if any(given.get(name) is False for name in ("train", "training")):
        return False
    dropped = [
        given.get(argument.name, argument.default_value)
        for argument in node.target._schema.arguments
        if argument.name in ("dropout_p", "dropout")
    ]
    return not any(probability == 0 for probability in dropped)
