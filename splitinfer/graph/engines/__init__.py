"""Engines: what turns the operations of a half into something that runs.

An engine is made for one captured graph and compiles any of its halves. It says what it promises: the bits of the
captured graph, or a tolerance. Another one is a module with a class of this protocol, and a line in ``ENGINES``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from splitinfer.errors import InputError
from splitinfer.threads import checked_threads

if TYPE_CHECKING:
    import torch
    from torch import fx

Half: TypeAlias = "Callable[..., tuple[torch.Tensor, ...]]"
"""Takes a half's arguments as tensors and returns its results. It changes neither arguments nor weights."""

DEFAULT_ENGINE = "torch"

ENGINES: dict[str, str] = {
    "torch": "splitinfer.graph.engines.torch_engine:TorchEngine",
    "onnxruntime": "splitinfer.graph.engines.onnxruntime_engine:OnnxRuntimeEngine",
    "executorch": "splitinfer.graph.engines.executorch_engine:ExecuTorchEngine",
}
"""Where the class of each engine is; it is imported when it is asked for."""


class Engine(Protocol):
    """Computes halves of one captured graph.

    Args:
        order: nodes of the captured graph in execution order: inputs, weights, operations. ``node.meta["val"]`` is a
            fake tensor of the node's shape, dtype and strides.
        weights: value of every get_attr target; shared by all halves, and never written to.

    Attributes:
        name: as users write it.
        tolerance: largest error of an answer against the captured graph's, relative to its largest magnitude; 0
            promises the same bits.
        compiles_quickly: False where a half takes seconds to compile, so that cuts are compiled when they are first
            used and batches are tried when they are first asked for. True where an engine does not say.

    An engine may have a method ``prepare(key, inputs, results)`` as well. It is called before anything is compiled,
    with a text that no other graph has, the graph's inputs, and every node that a half may give.
    """

    name: str
    tolerance: float

    def __init__(self, order: Sequence[fx.Node], weights: Mapping[str, Any]) -> None: ...

    def compile(self, arguments: Sequence[fx.Node], results: Sequence[fx.Node]) -> Half:
        """Compile the operations that lead from ``arguments`` to ``results``."""
        ...


def checked_engine(name: str) -> str:
    """Return the name of an engine as given, before anything that takes long.

    Raises:
        InputError: there is none of that name.
    """
    if name not in ENGINES:
        raise InputError(f"engine: no {name!r}; there are {', '.join(ENGINES)}")
    return name


def find_engine(name: str) -> type[Engine]:
    """Return the class of an engine.

    Raises:
        InputError: there is none of that name.
    """
    module, _, attribute = ENGINES[checked_engine(name)].partition(":")
    found: type[Engine] = getattr(import_module(module), attribute)
    return found


def set_threads(threads: int) -> None:
    """Let one operation use so many threads, in this process and in the libraries under the calling thread.

    Raises:
        InputError: no such number of threads.
    """
    number = checked_threads(threads)
    import torch

    torch.set_num_threads(number)
