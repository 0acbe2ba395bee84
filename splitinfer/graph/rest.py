"""Ordinary code behind a captured model, as one operation of its graph: post-processing that no export takes."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses import FakeTensorMode
from torch.utils import _pytree as pytree

from splitinfer.errors import CaptureError, InputError
from splitinfer.graph.capture import CapturedGraph, restored
from splitinfer.graph.refusals import error_text


class Rest:
    """Calls the user's function on what the captured module returns; takes and returns tensor leaves.

    Args:
        call: takes what the module returns.
        captured: the module's graph, for the structure of its output.
        example: what the module returned for the example inputs.

    Raises:
        CaptureError: it fails on the example, or returns no tensor.
    """

    def __init__(self, call: Callable[[Any], Any], captured: CapturedGraph, example: Any) -> None:
        self._call = call
        self._module_leaves, self._module_tree = captured.output_leaves, captured.output_tree
        name = f"{getattr(call, '__module__', '')}.{getattr(call, '__qualname__', type(call).__qualname__)}"
        self.__name__ = f"rest {name}"
        try:
            answer = call(example)
        except Exception as error:
            raise CaptureError(
                f"rest: {name} fails on the example: {type(error).__name__}: {error_text(error)}"
            ) from error
        leaves, self.tree = pytree.tree_flatten(answer)
        self.tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        if not self.tensors:
            raise CaptureError(f"rest: {name} returns no tensor")
        numbers = itertools.count()
        self.leaves: list[tuple[int | None, Any]] = [
            (next(numbers), None) if isinstance(leaf, torch.Tensor) else (None, leaf) for leaf in leaves
        ]

    def __str__(self) -> str:
        return self.__name__

    def __call__(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run it on the tensor leaves of the module's output.

        Raises:
            InputError: it fails, or its answer has another structure than at capture; sizes may differ.
        """
        try:
            answer = self._call(restored(tensors, self._module_leaves, self._module_tree))
        except Exception as error:
            raise InputError(f"{self} failed: {type(error).__name__}: {error_text(error)}") from error
        leaves, tree = pytree.tree_flatten(answer)
        found = tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))
        kinds = [(leaf.dtype, leaf.dim()) for leaf in found]
        constants = [leaf for leaf in leaves if not isinstance(leaf, torch.Tensor)]
        expected = [constant for index, constant in self.leaves if index is None]
        if tree != self.tree or kinds != [(t.dtype, t.dim()) for t in self.tensors] or constants != expected:
            raise InputError(f"{self} returns another structure, dtype or number of dimensions than at capture")
        return found


def append_rest(captured: CapturedGraph, call: Callable[[Any], Any], example: Any) -> None:
    """Make ``call`` the last operation of a captured graph. Every size of what it returns may differ per request."""
    from torch.fx.experimental.symbolic_shapes import ShapeEnv  # it brings sympy, half of what import torch takes

    rest = Rest(call, captured, example)
    graph = captured.graph
    (output,) = (node for node in graph.nodes if node.op == "output")
    mode = FakeTensorMode(shape_env=ShapeEnv())
    with mode:
        values = tuple(_of_any_size(tensor, mode) for tensor in rest.tensors)
    with graph.inserting_before(output):
        whole = graph.call_function(rest, tuple(output.args[0]))
        whole.meta["val"] = values
        items = []
        for index, value in enumerate(values):
            items.append(graph.call_function(operator.getitem, (whole, index)))
            items[-1].meta["val"] = value
    output.args = (tuple(items),)
    captured.output_tree, captured.output_leaves = rest.tree, rest.leaves


def _of_any_size(tensor: torch.Tensor, mode: FakeTensorMode) -> torch.Tensor:
    assert mode.shape_env is not None
    return torch.empty([mode.shape_env.create_unbacked_symint() for _ in tensor.shape], dtype=tensor.dtype)
