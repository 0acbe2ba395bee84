"""Make an exported graph functional, so that no operation changes a tensor that may cross a cut.

``torch.export`` keeps the model's in-place operations. Run twice on the same head output (a retry, a fallback), a tail
with in-place operations gives wrong answers. ``run_decompositions`` removes them by tracing the whole program a
second time, which costs as much as the export. Most models only use in-place operations on tensors that nothing else
looks at (``relu_`` after a convolution), where renaming is enough. That is done here; everything else is left to torch.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from splitinfer.graph.aliasing import allocates, declared_view_source, is_composite, possible_alias_sources

aten = torch.ops.aten

_ALIASES = frozenset({aten.detach.default, aten.detach_.default, aten.alias.default, aten.lift_fresh.default})
_DROPOUTS = frozenset(
    {
        aten.dropout.default,
        aten.dropout_.default,
        aten.feature_dropout.default,
        aten.feature_dropout_.default,
        aten.alpha_dropout.default,
        aten.alpha_dropout_.default,
        aten.feature_alpha_dropout.default,
        aten.feature_alpha_dropout_.default,
    }
)


def functional_program(program: ExportedProgram, notes: list[str]) -> ExportedProgram:
    """Return an equal program without in-place operations; the given program may be changed.

    What the model writes to tensors that outlive a call is lost by this, and added to ``notes``.
    """
    _drop_mere_aliases(program.graph)
    _note_lost_writes(program, notes)
    if _only_plain_operators(program.graph) and _rename_in_place_operations(program.graph):
        return program
    functional: ExportedProgram = program.run_decompositions(_decompositions_of_hidden_aliases(program.graph))
    return functional


def _drop_mere_aliases(graph: fx.Graph) -> None:
    """Replace what returns its argument itself by the argument.

    torch would decompose a dropout in evaluation mode to a copy, and a later in-place operation on it would be lost on
    the original.
    """
    for node in list(graph.nodes):
        if node.op == "call_function" and (
            node.target in _ALIASES or (node.target in _DROPOUTS and node.args[2] is False)
        ):
            source = node.args[0]
            assert isinstance(source, fx.Node)
            node.replace_all_uses_with(source)
            graph.erase_node(node)


def _note_lost_writes(program: ExportedProgram, notes: list[str]) -> None:
    """Note the buffers, parameters and inputs that some operation writes to, found by the memory that they share."""
    owner: dict[int, tuple[str, bool]] = {}  # storage -> name, whether it is the module's own
    for node, spec in zip(program.graph.nodes, program.graph_signature.input_specs, strict=False):
        if _has_storage(node):
            owner.setdefault(storage_of(node), (str(spec.target or node.name), spec.kind != InputKind.USER_INPUT))
    written: dict[tuple[str, bool], None] = {}
    for node in program.graph.nodes:
        if not isinstance(node.target, OpOverload) or not node.target._schema.is_mutable:
            continue
        for argument, value in zip(node.target._schema.arguments, node.args, strict=False):
            if argument.is_write and isinstance(value, fx.Node) and _has_storage(value):
                found = owner.get(storage_of(value))
                if found is not None:
                    written[found] = None
                    if _has_storage(node):  # copy_ returns what it wrote to under another storage
                        owner.setdefault(storage_of(node), found)
    own = [name for name, is_own in written if is_own]
    given = [name for name, is_own in written if not is_own]
    if own:
        notes.append(
            f"writes to its buffers ({', '.join(own)}); the split model leaves them as they were captured, so that a "
            "repeated request gives the same answer"
        )
    if given:
        notes.append(f"writes to its inputs ({', '.join(given)}); the split model leaves them as they were given")


def _has_storage(node: fx.Node) -> bool:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        return False
    try:
        value.untyped_storage()
    except NotImplementedError:  # of a tensor inside vmap
        return False
    return True


def storage_of(node: fx.Node) -> int:
    """Return what tells the memory of a tensor-valued node from that of others in the exported graph."""
    return int(node.meta["val"].untyped_storage()._cdata)


def _decompositions_of_hidden_aliases(graph: fx.Graph) -> dict[OpOverload, Callable[..., Any]]:
    """Composite operators may return a view without saying so (einsum, dropout in evaluation mode).

    torch keeps them whole and would not see that an in-place operation on their result changes their argument.
    """
    composite = torch._C.DispatchKey.CompositeImplicitAutograd
    return {
        node.target: partial(node.target._op_dk, composite)
        for node in graph.nodes
        if isinstance(node.target, OpOverload)
        and is_composite(node.target)
        and not allocates(node)
        and declared_view_source(node) is None
    }


def _only_plain_operators(graph: fx.Graph) -> bool:
    return all(
        node.op in ("placeholder", "output")
        or (node.op == "call_function" and (node.target is operator.getitem or isinstance(node.target, OpOverload)))
        for node in graph.nodes
    )


def _rename_in_place_operations(graph: fx.Graph) -> bool:
    """Replace ``y = op_(x)`` by ``y = op(x)`` and later uses of x by y; False if some operation needs more than that.

    The graph is changed only when every operation can be replaced.
    """
    position = {node: index for index, node in enumerate(graph.nodes)}
    group: dict[fx.Node, set[fx.Node]] = {}  # values that may share storage, by value
    renames: list[tuple[fx.Node, fx.Node, OpOverload]] = []
    current: dict[fx.Node, fx.Node] = {}  # original node -> the in-place node that now holds its value
    for node in graph.nodes:
        members = {node}
        group[node] = members
        if node.op != "call_function":
            continue
        op = node.target
        if isinstance(op, OpOverload) and op._schema.is_mutable:
            mutated = node.args[0] if node.args else None
            functional = _functional_twin(op)
            if (
                functional is None
                or not isinstance(mutated, fx.Node)
                or not _keeps_dtype(node, mutated)
                or not _keeps_layout(node, mutated, functional)
            ):
                return False
            if mutated in current:
                # The tensor was changed before and is named by its first name again.
                return False
            here = position[node]
            for other in group[mutated] - {mutated}:
                if any(position[user] > here for user in other.users) or other in node.all_input_nodes:
                    return False
            current[mutated] = node
            renames.append((node, mutated, functional))
            continue
        for source in possible_alias_sources(node):
            merged = group[source] | members
            members = merged
        for member in members:
            group[member] = members
    twins: dict[fx.Node, fx.Node] = {}
    for node, changed, functional in renames:
        here = position[node]
        mutated = twins.get(changed, changed)  # changed before, it has its twin's name by now
        with graph.inserting_before(node):
            twin = graph.call_function(functional, node.args, node.kwargs)
        twin.meta = dict(node.meta)
        twins[node] = twin
        position[twin] = here
        for user in list(mutated.users):
            if position[user] > here:
                user.replace_input_with(mutated, twin)
        node.replace_all_uses_with(twin)
        graph.erase_node(node)
    return True


def _functional_twin(op: OpOverload) -> OpOverload | None:
    """Return the operator that computes what the in-place one writes, if it has the same arguments."""
    packet_name = op._schema.name.split("::")[1]
    written = [index for index, argument in enumerate(op._schema.arguments) if argument.is_write]
    if not packet_name.endswith("_") or packet_name.startswith("_") or written != [0]:
        return None
    packet = getattr(aten, packet_name[:-1], None)
    twin = getattr(packet, op._overloadname, None) if packet is not None else None
    if not isinstance(twin, OpOverload) or twin._schema.is_mutable:
        return None
    if any(ret.alias_info is not None for ret in twin._schema.returns):
        return None  # unsqueeze_ and its like change what the tensor's name means, not its values
    same_arguments = [argument.name for argument in twin._schema.arguments[1:]] == [
        argument.name for argument in op._schema.arguments[1:]
    ]
    return twin if same_arguments else None


def _keeps_dtype(node: fx.Node, mutated: fx.Node) -> bool:
    """An in-place operation keeps its tensor's dtype and shape; its twin promotes, so both must come to the same."""
    mine = mutated.meta.get("val")
    if not isinstance(mine, torch.Tensor):
        return False
    for source in node.all_input_nodes:
        theirs = source.meta.get("val")
        if not isinstance(theirs, torch.Tensor) or torch.promote_types(mine.dtype, theirs.dtype) != mine.dtype:
            return False
    if mine.dtype.is_floating_point or mine.dtype.is_complex:
        return True
    return not any(isinstance(argument, float) for argument in node.args)


def _keeps_layout(node: fx.Node, mutated: fx.Node, twin: OpOverload) -> bool:
    """An in-place operation keeps its tensor's strides; its twin must make the same ones.

    An elementwise twin follows a dense first argument. For others the strides are tried.
    """
    mine = mutated.meta["val"]
    if not torch._prims_common.is_non_overlapping_and_dense_or_false(mine):
        return False
    if torch.Tag.pointwise in twin.tags:
        return True
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda source: source.meta.get("val"))
    with mine.fake_mode, torch.no_grad():
        result = twin(*args, **kwargs)
    return isinstance(result, torch.Tensor) and result.stride() == mine.stride()
