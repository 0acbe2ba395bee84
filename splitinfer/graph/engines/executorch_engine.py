"""The engine ``executorch``: halves as ExecuTorch programs with XNNPACK's kernels, checked against torch.

Each half is lowered by itself on first use, which takes seconds, and holds weights of its own. Nothing is kept on disk.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import fx

from splitinfer.errors import MissingExtraError
from splitinfer.graph.engines.checked import CheckedEngine, Run
from splitinfer.graph.engines.export import export_executorch, part_module

for _package in ("executorch", "torchao"):  # said where the engine is asked for, before anything slow
    if find_spec(_package) is None:
        raise MissingExtraError(_package, "executorch")


class ExecuTorchEngine(CheckedEngine):
    """Compiles halves of one captured graph for ExecuTorch."""

    name = "executorch"

    def open(self, used: Sequence[fx.Node], made: Sequence[fx.Node]) -> Run:
        """Return a half, lowered now."""
        from executorch.runtime import Runtime

        content = export_executorch(*part_module(self.order, self.weights, used, made))
        program = Runtime.get().load_program(content)
        return _Method(content, program, program.load_method("forward"))


class _Method:
    """A loaded method. It has one set of buffers, which the next call writes to."""

    def __init__(self, content: bytes, program: Any, method: Any) -> None:
        self._method, self._reads = method, (content, program)  # what it reads is not copied
        self._lock = threading.Lock()

    def __call__(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        with self._lock:
            return [made.clone() for made in self._method.execute([tensor.contiguous() for tensor in tensors])]
