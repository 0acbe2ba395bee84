"""Halves put together from parts between the cuts in use, for engines whose compiled code holds its own weights."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence

import torch
from torch import fx

from splitinfer.graph.engines import Engine, Half

START = -1
"""The place before cut 0: the model's inputs."""


class Parts:
    """Compiled parts of one model.

    A half runs the parts on its side, one after the other. A cut that is new divides the part that it lies in, so every
    weight is in one part at any time, whatever the number of cuts.

    Args:
        engine: compiles parts.
        inputs: of the model.
        crossings: tensors of the cuts 0..K; those of K are not used.
        outputs: of the model.
    """

    def __init__(
        self,
        engine: Engine,
        inputs: Sequence[fx.Node],
        crossings: Sequence[Sequence[fx.Node]],
        outputs: Sequence[fx.Node],
    ) -> None:
        self._engine = engine
        self._last = len(crossings) - 1
        self._tensors = {START: tuple(inputs), self._last: tuple(outputs)}
        self._tensors |= {k: tuple(nodes) for k, nodes in enumerate(crossings[:-1])}
        self._places = [START, self._last]
        self._compiled: dict[tuple[int, int], Half] = {}
        self._lock = threading.Lock()

    def half(self, side: str, k: int) -> Half:
        """Return the head or tail of a cut."""
        with self._lock:
            if k not in self._places:
                below = max(place for place in self._places if place < k)
                above = min(place for place in self._places if place > k)
                self._compiled.pop((below, above), None)
                self._places = sorted([*self._places, k])

        def run(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            for part in self._chain(START, k) if side == "head" else self._chain(k, self._last):
                tensors = part(*tensors)
            return tensors

        return run

    def _chain(self, first: int, last: int) -> list[Half]:
        with self._lock:
            places = [place for place in self._places if first <= place <= last]
            steps = list(itertools.pairwise(places))
            for step in steps:
                if step not in self._compiled:
                    self._compiled[step] = self._engine.compile(self._tensors[step[0]], self._tensors[step[1]])
            return [self._compiled[step] for step in steps]
