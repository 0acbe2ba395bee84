"""Where a captured graph can be cut, and what crosses there.

Operations run in the order in which they were captured. A *position* p puts the first p operations in the head. Cut
points are the positions where the MACs done so far strictly grow, and of all positions with equal MACs the one where
the fewest bits cross (the last of these, so that an activation stays with its layer). Values that come from weights
alone never cross: both sides have them. A view of a tensor that crosses anyway is made again in the tail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from torch import fx

from splitinfer.graph.aliasing import declared_view_source, is_random
from splitinfer.graph.capture import is_tensor_node
from splitinfer.graph.macs import node_macs, operator_name, uncounted_operators
from splitinfer.graph.refusals import source_line
from splitinfer.graph.specs import Cut, TensorSpec


@dataclass(frozen=True)
class Program:
    """The operations of a captured graph in order, with what the cut points need to know about each.

    Attributes:
        inputs: placeholders, in the order of the request's tensors.
        operations: nodes that depend on an input, in execution order; the positions count these.
        constants: nodes that depend on weights alone.
        outputs: the tensors that the model returns (operations, inputs or constants).
        macs: MACs per operation.
        uncounted: operators without a MAC rule and how often each occurs.
        random: operators that draw random numbers, each with its line in the model.
    """

    inputs: tuple[fx.Node, ...]
    operations: tuple[fx.Node, ...]
    constants: frozenset[fx.Node]
    outputs: tuple[fx.Node, ...]
    macs: tuple[int, ...]
    uncounted: dict[str, int]
    random: tuple[str, ...]


def analyse(graph: fx.Graph) -> Program:
    """Sort the nodes of a graph into inputs, constants and operations, and count MACs."""
    inputs: list[fx.Node] = []
    operations: list[fx.Node] = []
    constants: set[fx.Node] = set()
    outputs: tuple[fx.Node, ...] = ()
    macs: list[int] = []
    uncounted: Counter[str] = Counter()
    random: list[str] = []
    for node in graph.nodes:
        if node.op == "placeholder":
            inputs.append(node)
        elif node.op == "get_attr":
            constants.add(node)
        elif node.op == "output":
            outputs = tuple(node.args[0])
        else:
            count = node_macs(node)
            uncounted.update(uncounted_operators(node))
            draws = is_random(node)
            if draws:
                random.append(f"{operator_name(node)}{source_line(node)}")
            from_weights_alone = all(source in constants for source in node.all_input_nodes)
            if from_weights_alone and not count and not draws:
                constants.add(node)
            else:
                operations.append(node)
                macs.append(count or 0)
    return Program(
        tuple(inputs),
        tuple(operations),
        frozenset(constants),
        outputs,
        tuple(macs),
        dict(sorted(uncounted.items())),
        tuple(random),
    )


def find_cuts(program: Program) -> tuple[tuple[Cut, ...], tuple[tuple[fx.Node, ...], ...]]:
    """Return the cut points 0..K and, for each, the nodes that cross (in the order of ``Cut.crossing``)."""
    total = sum(program.macs)
    names = layer_names(program)
    crossings = Crossings(program)
    last_position = len(program.operations)

    best: dict[int, tuple[int, int, tuple[fx.Node, ...], fx.Node, tuple[int, ...]]] = {}
    shape: tuple[int, ...] = ()
    done = 0
    last_mac_node: fx.Node | None = None
    for position in range(1, last_position):
        node = program.operations[position - 1]
        if is_tensor_node(node):
            shape = tuple(node.meta["val"].shape)
        if program.macs[position - 1]:
            done += program.macs[position - 1]
            last_mac_node = node
        if not 0 < done < total or last_mac_node is None:
            continue
        crossing = crossings.at(position)
        if not crossing:
            continue
        bits = sum(bits_of(tensor) for tensor in crossing)
        if done not in best or bits <= best[done][0]:
            best[done] = (bits, position, crossing, last_mac_node, shape)

    start = crossings.at(0) or program.inputs
    cuts = [Cut(0, "input", 0, specs_of(start), _shape(program.inputs), 0)]
    nodes = [start]
    for macs, (_, position, crossing, mac_node, shape) in sorted(best.items()):
        cuts.append(Cut(len(cuts), names[mac_node], macs, specs_of(crossing), shape, position))
        nodes.append(crossing)
    final_name = next((names[node] for node in reversed(program.operations) if node in names), "output")
    cuts.append(Cut(len(cuts), final_name, total, (), _shape(program.operations or program.inputs), last_position))
    nodes.append(())
    return tuple(cuts), tuple(nodes)


def weight_uses(program: Program) -> dict[str, set[int]]:
    """Return, for each weight that the answer depends on, the positions of the operations that read it.

    A half holds a weight if one of its operations reads it, also through operations on weights alone. A weight that is
    returned as it is counts as read by the last operation.
    """
    uses: dict[str, set[int]] = {}
    reads = [(position, node.all_input_nodes) for position, node in enumerate(program.operations)]
    for position, sources in (*reads, (max(len(reads) - 1, 0), program.outputs)):
        found = {node for node in sources if node in program.constants}
        waiting = list(found)
        while waiting:
            node = waiting.pop()
            if node.op == "get_attr":
                uses.setdefault(str(node.target), set()).add(position)
            new = set(node.all_input_nodes) - found
            found |= new
            waiting += new
    return uses


class Crossings:
    """The cheapest set of tensors to send at each position.

    Attributes:
        view_of: of each view, the tensor from which alone the tail makes it again.
    """

    def __init__(self, program: Program) -> None:
        self._order = {node: index for index, node in enumerate((*program.inputs, *program.operations))}
        self._inputs = len(program.inputs)
        end = len(self._order)
        self._last_use = dict.fromkeys(self._order, -1)
        for node, index in self._order.items():
            for source in node.all_input_nodes:
                if source in self._last_use:
                    self._last_use[source] = max(self._last_use[source], index)
        for node in program.outputs:
            if node in self._last_use:
                self._last_use[node] = end
        self.view_of: dict[fx.Node, fx.Node] = {}
        for node in program.operations:
            viewed = declared_view_source(node)
            # A view that takes its shape from another tensor (expand_as) would need that one in the tail as well.
            if viewed is not None and [other for other in node.all_input_nodes if other in self._order] == [viewed]:
                self.view_of[node] = viewed
        self._ordered = list(self._order)

    def at(self, position: int) -> tuple[fx.Node, ...]:
        """Return the nodes to send at a position, in graph order; () if it is no place to cut."""
        boundary = self._inputs + position
        return self._cover({node for node in self._ordered[:boundary] if self._last_use[node] >= boundary})

    def of(self, head: Set[fx.Node]) -> tuple[fx.Node, ...]:
        """Return the nodes to send where these operations are the head, likewise."""
        made = [node for index, node in enumerate(self._ordered) if index < self._inputs or node in head]
        return self._cover(
            {
                node
                for node in made
                if self._last_use[node] == len(self._ordered)
                or any(reader in self._order and reader not in head for reader in node.users)
            }
        )

    def _cover(self, needed: set[fx.Node]) -> tuple[fx.Node, ...]:
        """Return the cheapest tensors that stand for the needed values.

        Values that live across a cut form trees of views. From each tree the cheapest cover is sent: a tensor stands
        for itself and for every view of it, which the tail makes again.
        """
        children: dict[fx.Node, list[fx.Node]] = {}
        roots: dict[fx.Node, None] = {}
        for node in sorted(needed, key=self._order.__getitem__):
            while (parent := self.view_of.get(node)) is not None:
                siblings = children.setdefault(parent, [])
                if node in siblings:
                    break
                siblings.append(node)
                node = parent
            else:
                roots[node] = None
        chosen: list[fx.Node] = []
        for root in roots:
            cost, cover = self._cheapest_cover(root, needed, children)
            if cost is None:
                return ()
            chosen += cover
        return tuple(sorted(chosen, key=self._order.__getitem__))

    def _cheapest_cover(
        self, node: fx.Node, needed: set[fx.Node], children: dict[fx.Node, list[fx.Node]]
    ) -> tuple[int | None, list[fx.Node]]:
        whole = bits_of(node) if is_tensor_node(node) else None
        if node in needed:
            return whole, [node]
        parts: list[fx.Node] = []
        total: int | None = 0
        for child in children[node]:
            cost, cover = self._cheapest_cover(child, needed, children)
            total = None if cost is None or total is None else total + cost
            parts += cover
        if total is None or (whole is not None and whole < total):
            return whole, [node]
        return total, parts


def bits_of(node: fx.Node) -> int:
    """Bits of a tensor's values in its own dtype."""
    value = node.meta["val"]
    return int(value.numel() * value.dtype.itemsize * 8)


def specs_of(nodes: Sequence[fx.Node]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec.of(node.meta["val"], node.name) for node in nodes)


def _shape(nodes: Iterable[fx.Node]) -> tuple[int, ...]:
    """Shape of the last single tensor among the nodes."""
    shapes = [tuple(node.meta["val"].shape) for node in nodes if is_tensor_node(node)]
    return shapes[-1] if shapes else ()


def layer_names(program: Program) -> dict[fx.Node, str]:
    """Name each operation that has MACs by the module it runs in; repeated ones get @1, @2 in order of execution."""
    paths: dict[fx.Node, str] = {}
    for node, count in zip(program.operations, program.macs, strict=True):
        if count:
            paths[node] = layer_path(node) or operator_name(node)
    repeats = Counter(paths.values())
    seen: Counter[str] = Counter()
    names = {}
    for node, path in paths.items():
        seen[path] += 1
        names[node] = f"{path}@{seen[path]}" if repeats[path] > 1 else path
    return names


def layer_path(node: fx.Node) -> str:
    """Return the qualified name of the innermost module that a node was captured in, "" for the model itself."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return ""
    path = str(list(stack.values())[-1][0])
    return path.removeprefix("L['self']").lstrip(".").split("@")[0]
