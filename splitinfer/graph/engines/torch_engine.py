"""The engine ``torch``: a half as a Python function that runs its operations on the model's shared weights.

The functions of all cuts live in one scope, which holds every weight, operator and constant once.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from splitinfer.graph.aliasing import allocates, possible_alias_sources
from splitinfer.graph.engines import Half

aten = torch.ops.aten

# Elementwise operations and the in-place twin that gives the same bits.
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


class TorchEngine:
    """Compiles halves of one captured graph, to the bits of the graph."""

    name = "torch"
    tolerance = 0.0

    def __init__(self, order: Sequence[fx.Node], weights: Mapping[str, Any]) -> None:
        """Prepare the graph's operations.

        Args:
            order: nodes of the captured graph in execution order: inputs, weights, operations.
            weights: value of every get_attr target.
        """
        self._order = order
        self._index = {node: index for index, node in enumerate(order)}
        self._scope: dict[str, Any] = {}
        self._fits: dict[tuple[fx.Node, fx.Node], bool] = {}
        for node in order:
            if node.op == "get_attr":
                self._scope[self._name(node)] = weights[str(node.target)]

    def compile(self, arguments: Sequence[fx.Node], results: Sequence[fx.Node]) -> Half:
        """Compile the operations that lead from ``arguments`` to ``results``.

        Only the operations that the results need are run, in the captured order. Temporary tensors that nothing else
        reads are overwritten by elementwise operations; arguments, weights and results never are.
        """
        operations = self._needed(arguments, results)
        kept = set(results)
        last_reader = self._last_readers(operations, kept)
        lines = [f"def half({', '.join(map(self._name, arguments))}):"]
        for node in operations:
            lines.append(f" {self._name(node)} = {self._call(node, operations, kept, last_reader)}")
            spent = [
                self._name(source)
                for source in node.all_input_nodes
                if source.op != "get_attr" and last_reader.get(source) is node
            ]
            if spent:
                lines.append(f" del {', '.join(spent)}")
        lines.append(f" return ({''.join(self._name(node) + ', ' for node in results)})")
        local: dict[str, Any] = {}
        exec(compile("\n".join(lines), "<half>", "exec"), self._scope, local)
        half: Half = local["half"]
        return half

    def _needed(self, arguments: Sequence[fx.Node], results: Sequence[fx.Node]) -> dict[fx.Node, None]:
        """Return the operations that the results need beyond the arguments, in execution order."""
        given = set(arguments)
        needed: set[fx.Node] = set()
        stack = [node for node in results if node not in given]
        while stack:
            node = stack.pop()
            if node not in needed and node.op == "call_function":
                needed.add(node)
                stack += [source for source in node.all_input_nodes if source not in given]
        return dict.fromkeys(sorted(needed, key=self._index.__getitem__))

    @staticmethod
    def _last_readers(operations: dict[fx.Node, None], kept: set[fx.Node]) -> dict[fx.Node, fx.Node]:
        last: dict[fx.Node, fx.Node] = {}
        for node in operations:
            for source in node.all_input_nodes:
                last[source] = node
        return {source: reader for source, reader in last.items() if source not in kept}

    def _call(
        self,
        node: fx.Node,
        operations: dict[fx.Node, None],
        kept: set[fx.Node],
        last_reader: dict[fx.Node, fx.Node],
    ) -> str:
        target: Any = node.target
        args = node.args
        if target is operator.getitem:
            return f"{self._text(args[0])}[{self._text(args[1])}]"
        if target in _IN_PLACE:
            places = (0, 1) if target in _COMMUTATIVE and not node.kwargs else (0,)
            for place in places:
                temporary = args[place]
                if (
                    isinstance(temporary, fx.Node)
                    and temporary in operations
                    and last_reader.get(temporary) is node
                    and self._can_be_overwritten(temporary, node, operations)
                ):
                    target = _IN_PLACE[target]
                    args = (temporary, args[1 - place]) if place else args
                    break
        written = [self._text(argument) for argument in args]
        written += [f"{name}={self._text(argument)}" for name, argument in node.kwargs.items()]
        return f"{self._constant(target, 'f')}({', '.join(written)})"

    def _can_be_overwritten(self, temporary: fx.Node, node: fx.Node, operations: dict[fx.Node, None]) -> bool:
        """True when the result of ``node``, the last reader of ``temporary``, fits there and nothing else sees it."""
        fits = self._fits.get((temporary, node))
        if fits is None:  # the same for every cut
            fits = self._fits[temporary, node] = _fits_into(node, temporary)
        return fits and not any(
            temporary in possible_alias_sources(reader)
            for reader in temporary.users
            if reader is not node and reader in operations
        )

    def _name(self, node: fx.Node) -> str:
        return f"v{self._index[node]}"

    def _text(self, argument: Any) -> str:
        """Write an argument: names for nodes, literals for numbers, constants of the scope for all else."""
        if isinstance(argument, fx.Node):
            return self._name(argument)
        if isinstance(argument, (list, tuple)):
            items = "".join(f"{self._text(item)}, " for item in argument)
            return f"[{items}]" if isinstance(argument, list) else f"({items})"
        if isinstance(argument, slice):
            return f"slice({self._text(argument.start)}, {self._text(argument.stop)}, {self._text(argument.step)})"
        if argument is None or isinstance(argument, (bool, int)):
            return repr(argument)
        return self._constant(argument, "c")

    def _constant(self, value: Any, kind: str) -> str:
        name = f"{kind}{id(value)}"
        self._scope[name] = value  # the scope keeps the value alive, so its id stays its own
        return name


def _fits_into(node: fx.Node, temporary: fx.Node) -> bool:
    """True when the result of ``node`` has the size, type and layout of ``temporary``, which shares no storage."""
    mine, theirs = node.meta.get("val"), temporary.meta.get("val")
    if not isinstance(mine, torch.Tensor) or not isinstance(theirs, torch.Tensor):
        return False
    if not all(isinstance(size, int) for size in (*mine.shape, *theirs.shape)):
        return False  # sizes that depend on values cannot be compared
    if mine.shape != theirs.shape or mine.dtype != theirs.dtype or not allocates(temporary):
        return False
    return mine.stride() == theirs.stride()  # in another layout, later kernels would sum in another order
