"""``SplitModel``: a captured model that can be cut at any of its cut points."""

from __future__ import annotations

import itertools
import numbers
import operator
import re
import reprlib
import threading
import warnings
from collections.abc import Callable, Container, Sequence, Set
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch import fx
from torch.utils import _pytree as pytree

from splitinfer.errors import CaptureError, InputError
from splitinfer.graph.ambient import without_autocast
from splitinfer.graph.batching import batched_graph
from splitinfer.graph.capture import CapturedGraph, capture_graph, own_weights, restored
from splitinfer.graph.cuts import Program, analyse, find_cuts, weight_uses
from splitinfer.graph.engines import DEFAULT_ENGINE, Half, find_engine
from splitinfer.graph.fingerprint import architecture_digest, cuts_digest, fingerprint, weights_digest
from splitinfer.graph.folding import fold_batch_norms
from splitinfer.graph.kept import frozen, thawed
from splitinfer.graph.refusals import one_line
from splitinfer.graph.rest import append_rest
from splitinfer.graph.set_cuts import SetCut, find_set_cuts
from splitinfer.graph.specs import FIRST_SET_CUT, Cut, TensorSpec
from splitinfer.graph.strides import with_captured_gaps

_NAMED_INPUTS = 8
"""Of inputs that do not fit, so many are named in an error."""


class SplitModel:
    """A model captured at one input size, cut into head and tail at any cut point 0..K or set cut.

    Head and tail of every cut run on the same weights, without gradients and without autocast. The weights are the
    model's own copies: what later becomes of the module's, by training or loading, changes neither answers nor
    fingerprint, and a model with new weights is captured anew. Halves are compiled on first use and kept. All methods
    may be called from several threads at once.

    Attributes:
        name: what people call the model.
        cuts: cut points 0..K.
        num_cuts: K.
        inputs: tensors of one inference request.
        outputs: tensor leaves of the model's output.
        total_macs: MACs of one inference.
        num_parameters: parameter elements of the model.
        uncounted_ops: operators that no MAC rule covers, with how often each occurs.
        random_ops: operators that draw random numbers in every run, each with its line. Two runs of a model that has
            some differ, whole or split.
        optimize: whether batch norms were folded into convolutions.
    """

    def __init__(self, captured: CapturedGraph, *, name: str, optimize: bool, engine: str) -> None:
        """Use :meth:`capture`."""
        self.name = name
        self.optimize = optimize
        self._captured = captured
        self._default_dtype = torch.get_default_dtype()
        self._architecture = architecture_digest(captured.graph)
        self._weights_digest: bytes | None = None
        folded: Set[str] = frozenset()
        if optimize and _has_batch_norm(captured.graph):
            # Folding replaces weights; the fingerprint is over the model's own, which are not kept after this.
            self._weights_digest = weights_digest(captured.graph, captured.weights)
            given = captured.weights.keys() | set()
            fold_batch_norms(captured.graph, captured.weights)
            folded = captured.weights.keys() - given
        own_weights(captured.weights, besides=folded)
        self._program: Program = analyse(captured.graph)
        self.cuts, self._crossing_nodes = find_cuts(self._program)
        positions = [cut.position for cut in self.cuts]
        self._cuts_digest = cuts_digest(captured.graph, self._program.operations, positions, self._crossing_nodes)
        self.num_cuts = len(self.cuts) - 1
        self.total_macs = self.cuts[-1].macs_before
        self.num_parameters = captured.num_parameters
        self.uncounted_ops = self._program.uncounted
        self.random_ops = self._program.random
        self.inputs = tuple(leaf for leaf in captured.input_leaves if isinstance(leaf, TensorSpec))
        self.outputs = tuple(TensorSpec.of(node.meta["val"], node.name) for node in self._program.outputs)
        self._returns_one_tensor = captured.output_tree.is_leaf() and captured.output_leaves == [(0, None)]
        order = [node for node in captured.graph.nodes if node.op != "output"]
        self._engine = find_engine(engine)(order, captured.weights)
        self._halves: dict[tuple[str, int, int], Half] = {}
        self._lock = threading.RLock()  # what builds a half may ask for the fingerprint
        self._search = threading.Lock()
        self._found_set_cuts: tuple[SetCut, ...] | None = None
        self._set_fingerprints: dict[int, str] = {}
        if (prepare := getattr(self._engine, "prepare", None)) is not None:
            crossing = [node for nodes in self._crossing_nodes[1:-1] for node in nodes]
            prepare(self.fingerprint, self._program.inputs, (*crossing, *self._program.outputs))

    @classmethod
    def capture(
        cls,
        model: torch.nn.Module,
        example_inputs: tuple[Any, ...],
        example_kwargs: dict[str, Any] | None = None,
        *,
        rest: Callable[[Any], Any] | None = None,
        optimize: bool = True,
        engine: str = DEFAULT_ENGINE,
        name: str | None = None,
        keep: Path | None = None,
    ) -> SplitModel:
        """Capture a module at the shapes of the example inputs.

        The module is captured as it computes in evaluation mode and is not changed. Values that are no tensors become
        part of the captured model.

        Args:
            model: any module that ``torch.export`` takes.
            example_inputs: positional inputs of ``forward``.
            example_kwargs: keyword inputs of ``forward``.
            rest: ordinary code behind the module, called with what it returns; its answer, tensors of any sizes in a
                structure that stays the same, is the model's. No export looks at it, so it may branch on values; it is
                one operation, which belongs to the tail (at k=K to the head), and its work counts nothing. It is part
                of the fingerprint by its name alone.
            optimize: fold batch norms into convolutions (outputs equal to 1e-4); False keeps every bit.
            engine: what computes halves, by name.
            name: what to call the model; the class's name by default.
            keep: file to keep the captured graph in, for :meth:`reopen`, where it is one that can be kept.

        Raises:
            InputError: no such engine, or inputs that do not fit ``forward``.
            CaptureError: the module cannot be captured; the message names the line and what to do.
        """
        kind = type(model).__name__
        find_engine(engine)  # a wrong name is said before anything slow
        with one_line(kind), torch.no_grad():
            captured = capture_graph(model, example_inputs, example_kwargs)
            if rest is not None:
                append_rest(captured, rest, _answer(captured, (tuple(example_inputs), dict(example_kwargs or {}))))
            write = frozen(captured) if keep is not None and rest is None else None
            split = cls(captured, name=name or kind, optimize=optimize, engine=engine)
        if write is not None and keep is not None and not split.random_ops:
            write(keep, split.fingerprint)
        if split.random_ops:
            captured.notes.append(
                f"draws random numbers in evaluation mode ({'; '.join(split.random_ops)}); no two of its answers "
                "are equal, split or whole"
            )
        for note in captured.notes:
            warnings.warn(f"{kind} {note}", stacklevel=2)
        return split

    @classmethod
    def reopen(cls, path: Path, *, name: str, optimize: bool = True, engine: str = DEFAULT_ENGINE) -> SplitModel | None:
        """Return the model that :meth:`capture` kept in a file; None where there is none, or not as it was written.

        The caller says by the file's name what it is a capture of. ``optimize`` has to be the same as there.

        Raises:
            InputError: no such engine.
        """
        find_engine(engine)
        kept = thawed(path)
        if kept is None:
            return None
        captured, fingerprint = kept
        with torch.no_grad():
            split = cls(captured, name=name, optimize=optimize, engine=engine)
        if split.fingerprint != fingerprint:
            return None
        for note in captured.notes:
            warnings.warn(f"{name} {note}", stacklevel=2)
        return split

    def half_weights(self, k: SupportsIndex) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return (elements, bits) of the weights and buffers that the head reads at cut k, and of the tail's.

        What both halves read counts in both. With ``optimize`` batch norms are folded away, as they are in memory.
        """
        k = self._index(k)
        head: Container[int] = range(self.cuts[k].position) if k <= self.num_cuts else self._set_cut(k).head
        uses = self._weight_uses.items()
        in_head = [name for name, positions in uses if any(position in head for position in positions)]
        in_tail = [name for name, positions in uses if any(position not in head for position in positions)]
        return self._size_of(in_head), self._size_of(in_tail)

    @cached_property
    def _weight_uses(self) -> dict[str, set[int]]:
        return weight_uses(self._program)

    def _size_of(self, names: list[str]) -> tuple[int, int]:
        held = [weight for name in names if isinstance(weight := self._captured.weights[name], torch.Tensor)]
        return sum(one.numel() for one in held), sum(one.numel() * one.dtype.itemsize * 8 for one in held)

    @property
    def engine(self) -> str:
        """Name of what computes halves. It plays no part in the fingerprint: each end chooses its own."""
        return self._engine.name

    @property
    def tolerance(self) -> float:
        """Largest relative error of the engine against the captured graph; 0 promises the same bits."""
        return self._engine.tolerance

    @property
    def compiles_quickly(self) -> bool:
        """Whether every cut and size of batch may be tried beforehand; if not, a half takes seconds to compile."""
        return bool(getattr(self._engine, "compiles_quickly", True))

    @property
    def fingerprint(self) -> str:
        """Hash of architecture, weights and cuts: equal on two machines when they mean the same by every cut."""
        with self._lock:
            if self._weights_digest is None:
                self._weights_digest = weights_digest(self._captured.graph, self._captured.weights)
        return fingerprint(self._architecture, self._weights_digest, self._cuts_digest, optimize=self.optimize)

    @property
    def set_cuts(self) -> tuple[Cut, ...]:
        """Cuts whose heads are no prefix of the order in which operations run, numbered from 100,000 on by rising MACs.

        They are those with fewer bits than every cut of no more MACs; most models have none. They are looked for when
        they are first asked for, which may take a second.
        """
        return tuple(one.cut for one in self._set_cuts)

    @property
    def found_set_cuts(self) -> tuple[Cut, ...] | None:
        """The set cuts, or None where nobody has asked for them so far; does not look for them."""
        found = self._found_set_cuts
        return None if found is None else tuple(one.cut for one in found)

    @property
    def _set_cuts(self) -> tuple[SetCut, ...]:
        with self._search:
            if self._found_set_cuts is None:
                self._found_set_cuts = find_set_cuts(self._program, self.cuts)
            return self._found_set_cuts

    def _set_cut(self, k: int) -> SetCut:
        return self._set_cuts[k - FIRST_SET_CUT]

    def is_set_cut(self, k: int) -> bool:
        """Whether a number is that of a set cut."""
        return k >= FIRST_SET_CUT and k < FIRST_SET_CUT + len(self._set_cuts)

    @property
    def tails(self) -> tuple[int, ...]:
        """Numbers of the cuts that have a tail: 0..K-1 and the set cuts."""
        return *range(self.num_cuts), *(cut.index for cut in self.set_cuts)

    def cut(self, k: SupportsIndex) -> Cut:
        """Return a cut 0..K or a set cut by its number.

        Raises:
            InputError: no such cut.
        """
        k = self._index(k)
        return self.cuts[k] if k <= self.num_cuts else self._set_cut(k).cut

    def crossing_nodes(self, k: SupportsIndex) -> tuple[fx.Node, ...]:
        """Return the nodes of the captured graph that cross a cut; at K those of the output's leaves."""
        k = self._index(k)
        if k == self.num_cuts:
            return self._program.outputs
        return self._crossing_nodes[k] if k < self.num_cuts else self._set_cut(k).crossing

    def fingerprint_at(self, k: SupportsIndex) -> str:
        """Return what requests for a cut carry: the fingerprint, of a set cut that of its head as well."""
        k = self._index(k)
        if k <= self.num_cuts:
            return self.fingerprint
        mark = self._set_fingerprints.get(k)
        if mark is None:
            one = self._set_cut(k)
            order = [self._program.operations[position] for position in sorted(one.head)]
            chosen = cuts_digest(self._captured.graph, order, [k], [one.crossing])
            mark = fingerprint(self.fingerprint.encode(), b"set", chosen, optimize=self.optimize)
            self._set_fingerprints[k] = mark
        return mark

    def __call__(self, *inputs: Any, **kwargs: Any) -> Any:
        """Run the whole captured model."""
        return self.unflatten_output(self.run_head(self.num_cuts, *inputs, **kwargs))

    def run_head(self, k: SupportsIndex, *inputs: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        """Run everything before cut k.

        Args:
            k: 0..K, or a set cut's number.
            inputs: the model's positional inputs, of the captured shapes and dtypes.
            kwargs: its keyword inputs, as captured.

        Returns:
            The tensors of ``cut(k).crossing``. At k=K nothing crosses and the output's tensor leaves are returned, in
            the form that ``run_tail(K, ...)`` takes.

        Raises:
            InputError: no such cut, or inputs that differ from the captured ones in structure, shape or dtype.
        """
        k = self._index(k)
        return self._run("head", k, self._flatten_inputs(inputs, kwargs))

    def run_tail(self, k: SupportsIndex, *tensors: torch.Tensor) -> Any:
        """Run everything after cut k on what ``run_head(k, ...)`` returned; returns what the model returns.

        Raises:
            InputError: no such cut, or tensors that are not those of ``cut(k).crossing``.
        """
        return self.unflatten_output(self.run_tail_leaves(k, tensors))

    def run_tail_leaves(self, k: SupportsIndex, tensors: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Run the tail and return the tensor leaves of the output, as an edge server sends them."""
        k = self._index(k)
        self.check_tail(k, tensors)
        if k == self.num_cuts:
            return tuple(tensors)
        return self._run("tail", k, tensors)

    def run_tails(
        self, k: SupportsIndex, requests: Sequence[tuple[torch.Tensor, ...]]
    ) -> list[tuple[torch.Tensor, ...]]:
        """Run the tail on what several heads returned, all at once; returns the output's tensor leaves of each.

        Each answer equals :meth:`run_tail_leaves` of its request up to rounding: kernels sum in another order when
        they work on more. One request alone gives the same bits. Unlike there, tensors are not looked at:
        :meth:`check_tail` does.

        Raises:
            CaptureError: this tail has no form for several requests.
        """
        k = self._index(k)
        if k == self.num_cuts:
            return [tuple(tensors) for tensors in requests]
        if len(requests) == 1:
            return [self._run("tail", k, requests[0])]
        stacked = [torch.stack(tensors).contiguous() for tensors in zip(*requests, strict=True)]
        leaves = self._run("tail", k, stacked, size=len(requests))
        return list(zip(*(leaf.unbind() for leaf in leaves), strict=True))

    def trial_tensors(self, k: SupportsIndex, seed: int) -> tuple[torch.Tensor, ...]:
        """Return what crosses cut k for made-up inputs: noise for real numbers, ``seed`` for whole ones."""
        random = torch.Generator().manual_seed(seed)
        inputs = [
            torch.randn(spec.shape, generator=random).to(spec.dtype)
            if spec.dtype.is_floating_point or spec.dtype.is_complex
            else torch.full(spec.shape, seed, dtype=spec.dtype)
            for spec in self.inputs
        ]
        return self._run("head", self._index(k), inputs)

    def check_tail(self, k: int, tensors: tuple[torch.Tensor, ...]) -> None:
        """Refuse what does not fit the tail of cut k.

        Raises:
            InputError: tensors that are not those of ``cut(k).crossing``.
        """
        self._check_tensors(tensors, self.outputs if k == self.num_cuts else self.cut(k).crossing, f"cut {k}")

    def unflatten_output(self, leaves: tuple[torch.Tensor, ...]) -> Any:
        """Put the tensor leaves back into the structure that the model returns."""
        if self._returns_one_tensor:
            return leaves[0]
        return restored(leaves, self._captured.output_leaves, self._captured.output_tree)

    def find_cut(self, cut: SupportsIndex | str) -> int:
        """Return k for an index or a layer name.

        A layer with MACs names the cut after it; any other module's name (``layer2``) names the cut after its last
        layer with MACs. ``{left.conv2+right.conv1}`` names a set cut.

        Raises:
            InputError: nothing has that name or index.
        """
        if not isinstance(cut, str):
            return self._index(cut)
        text = cut.strip()
        if re.fullmatch(r"-?[0-9]{1,9}", text):
            return self._index(int(text))
        known_cuts = (*self.cuts, *self.set_cuts) if text.startswith("{") else self.cuts
        exact = [entry.index for entry in known_cuts if entry.name == text]
        inside = [
            entry.index for entry in self.cuts[1:] if entry.name.startswith((f"{text}.", f"{text}@")) or text == ""
        ]
        if not exact and text.startswith("{"):
            some = ", ".join(entry.name for entry in self.set_cuts[:4])
            more = ", ..." if len(self.set_cuts) > 4 else ""
            raise InputError(
                f"{self.name} has no set cut {text!r}; " + (f"it has {some}{more}" if some else "it has none")
            )
        if not exact and not inside:
            known = ", ".join(entry.name for entry in self.cuts[:4])
            raise InputError(
                f"{self.name} has no layer {text!r}; cuts are 0..{self.num_cuts} or a layer's name: {known}, ..."
            )
        return (exact or inside)[-1]

    def warm(self, k: SupportsIndex) -> None:
        """Compile both halves of cut k now rather than at first use."""
        k = self._index(k)
        self._half("head", k)
        if k != self.num_cuts:
            self._half("tail", k)

    def _half(self, side: str, k: int, size: int = 1) -> Half:
        half = self._halves.get((side, k, size))
        if half is None:
            with self._lock:
                half = self._halves.get((side, k, size))
                if half is None:
                    half = self._halves[side, k, size] = self._build(side, k, size)
        return half

    def _build(self, side: str, k: int, size: int) -> Half:
        crossing = self.crossing_nodes(k)
        if side == "head":
            return self._engine.compile(self._program.inputs, crossing)
        if size == 1:
            half = self._engine.compile(crossing, self._program.outputs)
            return half if self.tolerance else with_captured_gaps(half, crossing)
        try:
            order, arguments, results = batched_graph(crossing, self._program.outputs, self._captured.weights, size)
        except CaptureError as error:
            raise CaptureError(f"the tail of {self.name} after cut {k} cannot run in batches: {error}") from error
        engine = type(self._engine)(order, self._captured.weights)
        if (prepare := getattr(engine, "prepare", None)) is not None:
            prepare(f"{self.fingerprint_at(k)} cut {k}, {size} requests", (), ())
        return engine.compile(arguments, results)

    def _run(self, side: str, k: int, tensors: Sequence[torch.Tensor], size: int = 1) -> tuple[torch.Tensor, ...]:
        half = self._half(side, k, size)
        if torch.get_default_dtype() is not self._default_dtype:
            raise InputError(
                f"{self.name} was captured with torch's default dtype {self._default_dtype}, which is now "
                f"{torch.get_default_dtype()}"
            )
        # One mode everywhere, since torch chooses kernels by it. In inference mode answers could not be written to.
        if torch.is_inference_mode_enabled() or torch._C._is_any_autocast_enabled():
            with torch.inference_mode(False), torch.no_grad(), without_autocast():
                return half(*tensors)
        with torch.no_grad():
            return half(*tensors)

    def _index(self, k: SupportsIndex) -> int:
        try:
            index = -1 if isinstance(k, bool) else operator.index(k)
        except TypeError:
            index = -1
        if 0 <= index <= self.num_cuts or self.is_set_cut(index):
            return index
        last = FIRST_SET_CUT + len(self._set_cuts) - 1
        sets = f" and the set cuts {FIRST_SET_CUT}..{last}" if self._set_cuts else ""
        raise InputError(f"cut {k!r} is out of range: {self.name} has cuts 0..{self.num_cuts}{sets}")

    def _flatten_inputs(self, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
        captured = self._captured
        if kwargs:
            order = captured.input_tree.child(1).context
            kwargs = {name: kwargs[name] for name in order if name in kwargs} | kwargs
        leaves, tree = pytree.tree_flatten((inputs, kwargs))
        if tree != captured.input_tree:
            said = (str(TensorSpec.of(one)) if isinstance(one, torch.Tensor) else reprlib.repr(one) for one in leaves)
            given = ", ".join(itertools.islice(said, _NAMED_INPUTS)) or "none"
            if len(leaves) > _NAMED_INPUTS:  # nested lists of numbers have a leaf for each
                given += f", ... ({len(leaves):,} in all)"
            raise InputError(
                f"{self.name} was captured with inputs of another structure: {self._input_summary()}; given are {given}"
            )
        tensors = []
        for leaf, expected in zip(leaves, captured.input_leaves, strict=True):
            if isinstance(expected, TensorSpec):
                tensors.append(leaf)
            elif not _is_same_constant(leaf, expected):
                given = f"a tensor ({TensorSpec.of(leaf)})" if isinstance(leaf, torch.Tensor) else repr(leaf)
                raise InputError(f"{self.name} was captured with the value {expected!r} where {given} is given")
        self._check_tensors(tuple(tensors), self.inputs, "input")
        return tensors

    def _check_tensors(self, tensors: tuple[Any, ...], specs: tuple[TensorSpec, ...], where: str) -> None:
        if len(tensors) != len(specs):
            raise InputError(f"{self.name} takes {len(specs)} tensors at {where}, not {len(tensors)}")
        for tensor, spec in zip(tensors, specs, strict=True):
            if not isinstance(tensor, torch.Tensor):
                raise InputError(f"{self.name} takes a tensor for {spec.name} at {where}, not {type(tensor).__name__}")
            if tensor.layout is not torch.strided:
                raise InputError(f"{self.name} takes a dense tensor for {spec.name} at {where}, not {tensor.layout}")
            if not tensor.is_cpu and self._is_on_cpu:
                raise InputError(
                    f"{self.name} takes a tensor in the CPU's memory for {spec.name} at {where}, not on "
                    f"{tensor.device}; give tensor.cpu()"
                )
            if not spec.fits(tensor):
                raise InputError(f"{self.name} takes {spec} for {spec.name} at {where}, not {TensorSpec.of(tensor)}")

    @cached_property
    def _is_on_cpu(self) -> bool:
        kinds = {weight.device.type for weight in self._captured.weights.values() if isinstance(weight, torch.Tensor)}
        return kinds == {"cpu"}

    def _input_summary(self) -> str:
        return ", ".join(f"{spec.name}: {spec}" for spec in self.inputs)

    def __repr__(self) -> str:
        return f"SplitModel({self.name!r}, cuts 0..{self.num_cuts}, {self.total_macs:,} MACs)"


def _has_batch_norm(graph: fx.Graph) -> bool:
    return any("batch_norm" in str(node.target) for node in graph.nodes if node.op == "call_function")


def _is_same_constant(given: Any, captured: Any) -> bool:
    """Whether a value means what the captured one means: 1 is not 1.0 or True, 0.0 is not -0.0, and nan is nan."""
    if type(given) is not type(captured):
        is_flag = isinstance(given, (bool, np.bool_)) or isinstance(captured, (bool, np.bool_))
        alike = next((kind for kind in (numbers.Integral, numbers.Real) if isinstance(captured, kind)), None)
        if alike is None or is_flag or not isinstance(given, alike):
            return False
        if isinstance(given, numbers.Integral) is not isinstance(captured, numbers.Integral):
            return False
        given = type(captured)(given)
    if isinstance(captured, float):
        return float.hex(given) == float.hex(captured)
    try:
        return bool(given == captured)
    except Exception:  # noqa: BLE001 - the comparison of a class of the user's own
        return False


def _answer(captured: CapturedGraph, inputs: Any) -> Any:
    """What the captured graph returns for inputs, run node by node."""
    tensors = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, torch.Tensor)]
    program = analyse(captured.graph)
    order = [node for node in captured.graph.nodes if node.op != "output"]
    leaves = find_engine(DEFAULT_ENGINE)(order, captured.weights).compile(program.inputs, program.outputs)(*tensors)
    return restored(leaves, captured.output_leaves, captured.output_tree)
