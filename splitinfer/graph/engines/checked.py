"""What engines share that run exported halves: first answers are checked, and torch is there where they are wrong.

A half's first answer is compared with torch's on the very tensors that came. Where they differ by more than
``CHECK_TOLERANCE``, or the export or the runtime fails, torch computes the half from then on, and a warning says which
operator and why.
"""

from __future__ import annotations

import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import fx

from splitinfer.graph.engines import Half
from splitinfer.graph.engines.torch_engine import TorchEngine

CHECK_TOLERANCE = 1e-4
"""Largest error of a half's first answer, relative to its largest magnitude."""

Run = Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]]


class EngineWarning(UserWarning):
    """An engine leaves a half to torch."""


class CheckedEngine(ABC):
    """An engine whose halves are exported and opened on first use, and checked."""

    name: ClassVar[str]
    tolerance = CHECK_TOLERANCE
    compiles_quickly = False

    def __init__(self, order: Sequence[fx.Node], weights: Mapping[str, Any]) -> None:
        self.order, self.weights = order, weights
        self._torch = TorchEngine(order, weights)

    @abstractmethod
    def open(self, used: Sequence[fx.Node], made: Sequence[fx.Node]) -> Run:
        """Return what computes the tensors of ``made`` from those of ``used``; called once for each half.

        Raises:
            Exception: it cannot be; of any class.
        """

    def compile(self, arguments: Sequence[fx.Node], results: Sequence[fx.Node]) -> Half:
        """Compile the operations that lead from ``arguments`` to ``results``; the first call checks them."""
        given = set(arguments)
        made = [node for node in dict.fromkeys(results) if node not in given]
        exact = self._torch.compile(arguments, results)
        operations = list(self._torch._needed(arguments, made))
        if not operations:
            return exact
        used = [node for node in arguments if any(node in op.all_input_nodes for op in operations)]
        return _CheckedHalf(self, arguments, results, used, made, operations, exact)


class _CheckedHalf:
    """One half: the engine's once its first answer is right, torch's where it is not."""

    def __init__(
        self,
        engine: CheckedEngine,
        arguments: Sequence[fx.Node],
        results: Sequence[fx.Node],
        used: Sequence[fx.Node],
        made: Sequence[fx.Node],
        operations: Sequence[fx.Node],
        exact: Half,
    ) -> None:
        self._engine = engine
        self._exact = exact
        self._used, self._made, self._operations = used, made, operations
        self._inputs = [arguments.index(node) for node in used]
        place = {node: ("made", made.index(node)) for node in made}
        self._outputs = [place.get(node) or ("given", arguments.index(node)) for node in results]
        self._run: Run | None = None
        self._is_torch = False
        self._lock = threading.Lock()

    def __call__(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self._is_torch:
            return self._exact(*tensors)
        if self._run is None:
            return self._first(tensors)
        return self._answer(self._run, tensors)

    def _answer(self, run: Run, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        made = run([tensors[i] for i in self._inputs])
        return tuple(made[i] if kind == "made" else tensors[i] for kind, i in self._outputs)

    def _first(self, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        with self._lock:
            if self._is_torch or self._run is not None:
                return self(*tensors)
            expected = self._exact(*tensors)
            run = None
            try:
                run = self._engine.open(self._used, self._made)
                trouble = _difference(self._answer(run, tensors), expected)
            except Exception as error:  # noqa: BLE001 - exporter and runtime fail in any way, and torch computes it then
                line = (str(error).strip().splitlines() or [""])[0]
                trouble = f"{type(error).__name__}: {line}"
            if not trouble:
                self._run = run
            else:
                self._is_torch = True
                last = self._operations[-1]
                warnings.warn(
                    f"engine {self._engine.name} leaves {len(self._operations)} operations up to {last.name} "
                    f"({last.target}) to torch: {trouble}",
                    EngineWarning,
                    stacklevel=2,
                )
            return expected


def _difference(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> str:
    """What is wrong with an answer; empty where nothing is."""
    for mine, theirs in zip(found, expected, strict=True):
        if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
            return f"it gives {mine.dtype} {tuple(mine.shape)} where torch gives {theirs.dtype} {tuple(theirs.shape)}"
        if not theirs.is_floating_point():
            if not torch.equal(mine, theirs):
                return "its whole numbers differ from torch's"
            continue
        if theirs.numel():
            scale = max(float(theirs.abs().max()), 1e-30)
            error = float((mine - theirs).abs().max()) / scale
            if not error <= CHECK_TOLERANCE:
                return f"its answer is {error:.1e} off, more than {CHECK_TOLERANCE:.0e} of the largest value"
    return ""
