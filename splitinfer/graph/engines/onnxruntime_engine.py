"""The engine ``onnxruntime``: parts of a model as ONNX Runtime sessions, checked against torch, kept on disk.

A part is exported on first use from the captured operations, and its first answer is compared with torch's on the
very tensors that came. Where they differ by more than ``CHECK_TOLERANCE``, or the export or the runtime fails, torch
computes the part from then on, and a warning says which operator and why. Exported files are kept in a folder by a key
of fingerprint, part and versions, so that a second start finds them.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import fx

from splitinfer.errors import MissingExtraError
from splitinfer.graph.engines import Half
from splitinfer.graph.engines.export import export_onnx, part_module
from splitinfer.graph.engines.torch_engine import TorchEngine
from splitinfer.graph.kept import cache_folder

CHECK_TOLERANCE = 1e-4
"""Largest error of a part's first answer, relative to its largest magnitude."""

for _package in ("onnxruntime", "onnx", "onnxscript"):  # said where the engine is asked for, before anything slow
    if find_spec(_package) is None:
        raise MissingExtraError(_package, "onnx")

FORMAT = 1
"""Of the kept files; a change makes old ones useless."""


class EngineWarning(UserWarning):
    """An engine leaves a part to torch."""


class OnnxRuntimeEngine:
    """Compiles parts of one captured graph for ONNX Runtime's CPU provider.

    Attributes:
        key: what the captured graph is known by, for kept files; none are kept without one.
    """

    name = "onnxruntime"
    tolerance = CHECK_TOLERANCE
    in_parts = True

    def __init__(self, order: Sequence[fx.Node], weights: Mapping[str, Any]) -> None:
        self.key: str | None = None
        self._torch = TorchEngine(order, weights)
        self._weights = weights

    def compile(self, arguments: Sequence[fx.Node], results: Sequence[fx.Node]) -> Half:
        """Compile the operations that lead from ``arguments`` to ``results``; the first call checks them."""
        given = set(arguments)
        made = [node for node in dict.fromkeys(results) if node not in given]
        exact = self._torch.compile(arguments, results)
        operations = list(self._torch._needed(arguments, made))
        if not operations:
            return exact
        used = [node for node in arguments if any(node in op.all_input_nodes for op in operations)]
        return _CheckedPart(self, arguments, results, used, made, operations, exact)

    def session(self, used: Sequence[fx.Node], made: Sequence[fx.Node], operations: Sequence[fx.Node]) -> Any:
        """Return a session of a part, from the folder of kept files or exported now."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that spin while they wait take the cores from torch, which is many times slower beside them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = self._path(used, made)
        if path is None or not path.is_file():
            order = [node for node, _ in sorted(self._torch._index.items(), key=lambda item: item[1])]
            content = export_onnx(*part_module(order, self._weights, used, made))
            if path is None:
                return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            _keep(path, content)
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def _path(self, used: Sequence[fx.Node], made: Sequence[fx.Node]) -> Path | None:
        if self.key is None:
            return None
        import onnxruntime

        index = self._torch._index
        part = [self.key, torch.__version__, onnxruntime.__version__, FORMAT]
        part += [[index[node] for node in used], [index[node] for node in made]]
        name = hashlib.sha256(repr(part).encode()).hexdigest()[:32]
        return cache_folder() / "onnxruntime" / f"{name}.onnx"


class _CheckedPart:
    """One part: ONNX Runtime once its first answer is right, torch where it is not."""

    def __init__(
        self,
        engine: OnnxRuntimeEngine,
        arguments: Sequence[fx.Node],
        results: Sequence[fx.Node],
        used: Sequence[fx.Node],
        made: Sequence[fx.Node],
        operations: Sequence[fx.Node],
        exact: Half,
    ) -> None:
        self._engine = engine
        self._exact = exact
        self._part = used, made, operations
        self._inputs = [arguments.index(node) for node in used]
        place = {node: ("made", made.index(node)) for node in made}
        self._outputs = [place.get(node) or ("given", arguments.index(node)) for node in results]
        self._dtypes = [node.meta["val"].dtype for node in made]
        self._session: Any = None
        self._is_torch = False
        self._lock = threading.Lock()

    def __call__(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self._is_torch:
            return self._exact(*tensors)
        if self._session is None:
            return self._first(tensors)
        return self._run(tensors)

    def _run(self, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        session, names = self._session
        feed = {name: tensors[i].contiguous().numpy() for name, i in zip(names, self._inputs, strict=True)}
        made = [torch.from_numpy(array) for array in session.run(None, feed)]
        return tuple(made[i] if kind == "made" else tensors[i] for kind, i in self._outputs)

    def _first(self, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        with self._lock:
            if self._is_torch or self._session is not None:
                return self(*tensors)
            expected = self._exact(*tensors)
            try:
                session = self._engine.session(*self._part)
                self._session = session, [one.name for one in session.get_inputs()]
                trouble = _difference(self._run(tensors), expected)
            except Exception as error:  # noqa: BLE001 - exporter and runtime fail in any way, and torch computes it then
                line = (str(error).strip().splitlines() or [""])[0]
                trouble = f"{type(error).__name__}: {line}"
            if trouble:
                self._session, self._is_torch = None, True
                last = self._part[2][-1]
                warnings.warn(
                    f"engine onnxruntime leaves {len(self._part[2])} operations up to {last.name} ({last.target}) to "
                    f"torch: {trouble}",
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


def _keep(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; another process may write the same one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except OSError as error:
        raise OSError(f"cannot keep {path} ({error.strerror}); set SPLITINFER_CACHE to a folder with room") from None
