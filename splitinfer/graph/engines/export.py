"""Parts of a captured graph as modules of their own, and as files of other runtimes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx


def part_module(
    order: Sequence[fx.Node], weights: Mapping[str, Any], arguments: Sequence[fx.Node], results: Sequence[fx.Node]
) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    """Return the operations that lead from ``arguments`` to ``results`` as a module, with example tensors.

    Args:
        order: nodes of the captured graph in execution order.
        weights: value of every get_attr target.
        arguments, results: of the part.
    """
    given = set(arguments)
    needed: set[fx.Node] = set()
    stack = [node for node in results if node not in given]
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack += [source for source in node.all_input_nodes if source not in given]
    root, graph = torch.nn.Module(), fx.Graph()
    copied = {node: graph.placeholder(f"input_{i}") for i, node in enumerate(arguments)}
    for node in order:
        if node not in needed:
            continue
        if node.op == "get_attr":
            name = f"weight_{len(copied)}"
            root.register_buffer(name, weights[str(node.target)].detach())
            copied[node] = graph.get_attr(name)
        else:
            copied[node] = graph.node_copy(node, copied.__getitem__)
    graph.output(tuple(copied[node] for node in results))
    examples = tuple(torch.zeros(node.meta["val"].shape, dtype=node.meta["val"].dtype) for node in arguments)
    return fx.GraphModule(root, graph).eval(), examples


def export_onnx(module: torch.nn.Module, examples: tuple[torch.Tensor, ...]) -> bytes:
    """Return a module as an ONNX file with its weights."""
    with warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript", "onnx_ir"):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(torch.export.export(module, examples), dynamo=True, verbose=False, optimize=True)
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content


def export_executorch(module: torch.nn.Module, examples: tuple[torch.Tensor, ...]) -> bytes:
    """Return a module as an ExecuTorch program, with XNNPACK's kernels for what it has."""
    with warnings.catch_warnings(), _quiet("torch", "executorch", "torchao"):
        warnings.simplefilter("ignore")
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        program = torch.export.export(module, examples)
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        content: bytes = lowered.to_executorch().buffer
    return content


class _quiet:  # noqa: N801 - used like a function
    """Keeps loggers down to errors for a while."""

    def __init__(self, *names: str) -> None:
        self._loggers = [logging.getLogger(name) for name in names]

    def __enter__(self) -> None:
        self._levels = [logger.level for logger in self._loggers]
        for logger in self._loggers:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *exc: object) -> None:
        for logger, level in zip(self._loggers, self._levels, strict=True):
            logger.setLevel(level)
