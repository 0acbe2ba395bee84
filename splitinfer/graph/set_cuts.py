"""Cuts whose head is no prefix of the captured order, by minimum cuts.

A head may be any set of operations that contains whatever its members read. For the price y of a bit that crosses and
z of a MAC in the head (a MAC of the device less one of the edge), the cheapest head is a minimum cut between the
model's inputs (source) and its outputs (sink):

    operation v        vertex v, in the head if on the source's side; v to the sink costs z · MACs of v
    v reads u          v to u is infinite: what a member reads is a member
    u is a tensor      a vertex u', on the sink's side if the tail has u; u to u' costs y · bits of u, once for all
                       that read u, and u' to each of them is infinite: what the tail reads, the tail has
    u is a view of w   w' to u' instead of u to u': a tail that has w makes the view itself
    u is an output     u' to the sink is infinite

This is the construction of Hu et al., "Dynamic Adaptive DNN Surgery" (INFOCOM 2019), with their auxiliary vertices for
tensors with several readers; the infinite arcs that keep a head closed are those of Picard's maximum closure (1976).

One price finds corners of the convex hull alone, which most often are all at the edge and all on the device. So, as cut
points are places behind a layer, each layer with MACs is made the head's last in turn, and so is each pair of layers of
which neither depends on the other: what they read is in the head, and layers that read them are in the tail. What runs
beside them is decided by minimum cuts, at every price that changes the answer. Of all that is found, with the cuts
0..K, the Pareto points are kept.

Capacities are whole numbers of any size, and of several minimum cuts the one with the largest head is taken, which is
unique: all machines find the same sets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from torch import fx

from splitinfer.graph.capture import is_tensor_node
from splitinfer.graph.cuts import Crossings, Program, bits_of, layer_names, specs_of
from splitinfer.graph.specs import FIRST_SET_CUT, Cut

MAX_WORK = 500_000
"""Vertices and arcs of all minimum cuts of one model together, some seconds. What is left when it is reached is not
looked for."""

_SOURCE, _SINK = "source", "sink"


@dataclass(frozen=True)
class SetCut:
    """A cut with its head.

    Attributes:
        cut: numbered from ``FIRST_SET_CUT`` on.
        crossing: nodes that cross, in the order of ``cut.crossing``.
        head: positions of the head's operations.
    """

    cut: Cut
    crossing: tuple[fx.Node, ...]
    head: frozenset[int]


def find_set_cuts(program: Program, cuts: tuple[Cut, ...]) -> tuple[SetCut, ...]:
    """Return the Pareto points of (MACs before the cut, bits crossing it) that no cut 0..K reaches, by rising MACs.

    Args:
        program: of the captured graph.
        cuts: its cuts 0..K.
    """
    found: dict[tuple[int, int], frozenset[fx.Node]] = {}
    search = _Search(program)
    for last in search.ends():
        for point, head in search.heads_that_end_in(last):
            found.setdefault(point, head)
    linear = {(cut.macs_before, cut.crossing_bits) for cut in cuts}
    names = layer_names(program)
    positions = {node: position for position, node in enumerate(program.operations)}
    sets: list[SetCut] = []
    for point in _pareto({*found, *linear}):
        if point in linear:
            continue
        operations = sorted(found[point], key=positions.__getitem__)
        crossing = search.crossings.of(found[point])
        made = [node for node in operations if is_tensor_node(node)] or program.inputs
        cut = Cut(
            index=FIRST_SET_CUT + len(sets),
            name=f"{{{'+'.join(_last_layers(operations, names)) or 'input'}}}",
            macs_before=point[0],
            crossing=specs_of(crossing),
            output_shape=tuple(made[-1].meta["val"].shape),
            position=len(operations),
        )
        sets.append(SetCut(cut, crossing, frozenset(map(positions.__getitem__, operations))))
    return tuple(sets)


def _pareto(points: set[tuple[int, int]]) -> list[tuple[int, int]]:
    kept: list[tuple[int, int]] = []
    for point in sorted(points):
        if not kept or point[1] < kept[-1][1]:
            kept.append(point)
    return kept


def _last_layers(head: list[fx.Node], names: dict[fx.Node, str]) -> list[str]:
    """Names of the head's layers with MACs that no other of them depends on."""
    is_read: set[fx.Node] = set()  # by a layer with MACs, in the head
    members = set(head)
    last = []
    for node in reversed(head):
        if node in names and node not in is_read:
            last.append(names[node])
        if node in names or node in is_read:
            is_read.update(source for source in node.all_input_nodes if source in members)
    return last[::-1]


class _Search:
    """Minimum cuts of one program.

    Attributes:
        macs: of each operation that has any.
        crossings: what crosses at a head.
    """

    def __init__(self, program: Program) -> None:
        self.macs = {node: count for node, count in zip(program.operations, program.macs, strict=True) if count}
        self.crossings = Crossings(program)
        self._program = program
        self._total = sum(program.macs)
        self._most_bits = sum(bits_of(node) for node in (*program.inputs, *program.operations) if is_tensor_node(node))
        self._work = 0
        places = {node: place for place, node in enumerate((*program.inputs, *program.operations))}
        self._sources = {node: [one for one in node.all_input_nodes if one in places] for node in places}
        self._readers: dict[fx.Node, list[fx.Node]] = {node: [] for node in places}
        for node, sources in self._sources.items():
            for source in sources:
                self._readers[source].append(node)
        self._bit = {node: 1 << place for node, place in places.items()}
        self._behind: dict[fx.Node, int] = {}  # what a node depends on, as bits
        for node, sources in self._sources.items():
            self._behind[node] = 0
            for source in sources:
                self._behind[node] |= self._behind[source] | self._bit[source]

    def ends(self) -> Iterator[tuple[fx.Node, ...]]:
        """Yield what may be last in a head: no layer with MACs, one, or two that do not depend on each other."""
        yield ()
        yield from ((layer,) for layer in self.macs)
        for one, other in combinations(self.macs, 2):
            if not (self._behind[other] & self._bit[one] or self._behind[one] & self._bit[other]):
                yield one, other

    def heads_that_end_in(self, last: tuple[fx.Node, ...]) -> Iterator[tuple[tuple[int, int], frozenset[fx.Node]]]:
        """Yield heads that hold these layers and none that reads one of them, with their MACs and bits.

        They are those of the lower left side of the convex hull. A head without a last layer holds none at all.
        """
        self._work += len(self._bit)
        if self._work > MAX_WORK:
            return
        inside, ended, outside = sum(self._bit[node] for node in self._program.inputs), 0, 0
        for node in last:
            inside |= self._behind[node] | self._bit[node]
            ended |= self._bit[node]
        for node in self.macs:
            if not inside & self._bit[node] and (not last or self._behind[node] & ended):
                outside |= self._bit[node]
        for node in self._program.operations:
            if self._behind[node] & outside:
                outside |= self._bit[node]
        network = self._network(inside, outside)

        def cheapest(per_bit: int, per_mac: int) -> tuple[tuple[int, int], frozenset[fx.Node]] | None:
            beside = self._minimum_cut(network, per_bit, per_mac)
            if beside is None:
                return None
            head = frozenset(n for n in self._program.operations if inside & self._bit[n] or n in beside)
            crossing = self.crossings.of(head)
            return (sum(self.macs.get(node, 0) for node in head), sum(map(bits_of, crossing))), head

        ends = [cheapest(1, self._most_bits + 1)]
        if any(not (inside | outside) & self._bit[node] for node in self.macs):
            ends.append(cheapest(self._total + 1, 1))
        waiting = [(ends[0], ends[-1])]
        while waiting:
            one, other = waiting.pop()
            if one is None or other is None:
                continue
            per_bit, per_mac = other[0][0] - one[0][0], one[0][1] - other[0][1]
            if per_bit <= 0 or per_mac <= 0:
                continue
            between = cheapest(per_bit, per_mac)
            if between and per_bit * (between[0][1] - one[0][1]) + per_mac * (between[0][0] - one[0][0]) < 0:
                ends.append(between)
                waiting += [(one, between), (between, other)]
        for found in ends:
            if found is not None and found[0][0] < self._total and self.crossings.of(found[1]):
                yield found

    def _network(self, inside: int, outside: int) -> list[tuple[Any, Any, str, int]]:
        """Arcs (from, to, what is priced, how many), "" where the capacity is infinite.

        Args:
            inside, outside: nodes that are in the head and in the tail whatever it costs, as bits.
        """
        arcs: dict[tuple[Any, Any, str, int], None] = {}
        outputs = {node for node in self._program.outputs if node in self._bit}

        def vertex(node: fx.Node) -> Any:
            return _SOURCE if inside & self._bit[node] else _SINK if outside & self._bit[node] else node

        def sent(node: fx.Node) -> tuple[str, fx.Node]:
            """The vertex of a tensor, with its arcs from where the tail may have it."""
            viewed = self.crossings.view_of.get(node)
            start = vertex(node) if viewed is None else sent(viewed)
            arcs[start, ("sent", node), *(("bits", bits_of(node)) if is_tensor_node(node) else ("", 0))] = None
            return "sent", node

        for node, bit in self._bit.items():
            if outside & bit:
                continue
            if node in outputs:
                arcs[sent(node), _SINK, "", 0] = None
            for reader in self._readers[node]:
                if not inside & self._bit[reader]:
                    arcs[sent(node), vertex(reader), "", 0] = None
                    if not (inside & bit or outside & self._bit[reader]):
                        arcs[reader, node, "", 0] = None
            if not inside & bit and node in self.macs:
                arcs[node, _SINK, "macs", self.macs[node]] = None
        return list(arcs)

    def _minimum_cut(self, arcs: list[tuple[Any, Any, str, int]], per_bit: int, per_mac: int) -> set[Any] | None:
        """Return the source's side, the largest there is; None where no cut is finite, or the work is used up."""
        import networkx  # slow to import, and most processes need none
        from networkx.algorithms.flow import boykov_kolmogorov

        self._work += len(arcs)
        if self._work > MAX_WORK:
            return None
        price = {"bits": per_bit, "macs": per_mac}
        graph = networkx.DiGraph()
        graph.add_nodes_from((_SOURCE, _SINK))
        for start, end, kind, count in arcs:
            if kind:
                graph.add_edge(start, end, capacity=count * price[kind])
            else:
                graph.add_edge(start, end)  # without a capacity it is infinite
        try:
            _, (source_side, _) = networkx.minimum_cut(graph, _SOURCE, _SINK, flow_func=boykov_kolmogorov)
        except networkx.NetworkXUnbounded:
            return None
        return set(source_side)
