"""The engine ``onnxruntime``: halves as ONNX Runtime sessions, checked against torch, kept on disk.

The model is exported once, with what crosses any cut among its outputs, and each half is cut out of that on first use;
where the model cannot be exported, a half is by itself. Files are kept in a folder by a key of fingerprint, versions
and processor, so that a second start finds them.
"""

from __future__ import annotations

import hashlib
import logging
import platform
import tempfile
import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import fx

from splitinfer.errors import MissingExtraError
from splitinfer.files import cache_folder, only_we_write, replacing
from splitinfer.graph.engines import onnx_files
from splitinfer.graph.engines.checked import CheckedEngine, Run
from splitinfer.graph.engines.export import export_onnx, part_module
from splitinfer.graph.kept import make_room

logger = logging.getLogger(__name__)

PACKED_SHARE = 1.0
MIN_PACKED_BYTES = 256 << 20
"""ONNX Runtime packs matrices anew for each session: at most so much of a model's weights, for all its halves together,
or so many bytes. What comes later reads matrices as they are, which takes up to 15 % longer for transformers."""

WHOLE = "whole.onnx"

for _package in ("onnxruntime", "onnx", "onnxscript"):  # said where the engine is asked for, before anything slow
    if find_spec(_package) is None:
        raise MissingExtraError(_package, "onnx")

FORMAT = 2
"""Of the kept files; a change makes old ones useless."""


class OnnxRuntimeEngine(CheckedEngine):
    """Compiles halves of one captured graph for ONNX Runtime's CPU provider."""

    name = "onnxruntime"

    def __init__(self, order: Sequence[fx.Node], weights: Mapping[str, Any]) -> None:
        super().__init__(order, weights)
        self._index = {node: index for index, node in enumerate(order)}
        self._pack_bytes = max(
            MIN_PACKED_BYTES,
            PACKED_SHARE * sum(one.nbytes for one in weights.values() if isinstance(one, torch.Tensor)),
        )
        self._key = ""
        self._takes: list[fx.Node] = []
        self._gives: list[fx.Node] = []
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._has_whole = True
        self._lock = threading.Lock()

    def prepare(self, key: str, inputs: Sequence[fx.Node], results: Sequence[fx.Node]) -> None:
        """Export the whole graph once, when the first half is asked for, and keep files under a key."""
        self._key = key
        self._takes = list(dict.fromkeys(inputs))
        self._gives = [node for node in dict.fromkeys(results) if node.op == "call_function"]

    def open(self, used: Sequence[fx.Node], made: Sequence[fx.Node]) -> Run:
        """Return a half, from the folder of kept files or exported now."""
        with self._lock:
            if not self._key and self._scratch is None:
                self._scratch = tempfile.TemporaryDirectory()
            half = [[self._index[node] for node in nodes] for nodes in (used, made)]
            path = self._path(_digest(half))
            threads = torch.get_num_threads()
            try:
                opened = onnx_files.open_half(path, threads, pack_bytes=self._pack_bytes)
            except Exception:  # noqa: BLE001 - not there, or damaged in one of many ways
                onnx_files.save_half(self._content(used, made), path)
                if self._scratch is None:
                    make_room(path.parent, onnx_files.in_use)
                opened = onnx_files.open_half(path, threads, pack_bytes=self._pack_bytes)
            self._pack_bytes -= opened.matrix_bytes

        def run(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
            feed = {name: tensor.contiguous().numpy() for name, tensor in zip(opened.inputs, tensors, strict=True)}
            return [torch.from_numpy(array) for array in opened.session.run(None, feed)]

        return run

    def _path(self, part: str) -> Path:
        """Return where a part of the model is kept; its folder is there."""
        import onnxruntime

        if self._scratch is not None:
            return Path(self._scratch.name) / f"{part}.onnx"
        # Optimised files are for one kind of processor.
        processor = platform.machine(), torch.backends.cpu.get_cpu_capability()
        versions = torch.__version__, onnxruntime.__version__, version("onnxscript"), FORMAT
        folder = cache_folder() / "onnxruntime"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not only_we_write(folder):
                folder.chmod(0o700)
        except OSError as error:
            raise OSError(f"cannot make {folder} ({error.strerror}); set SPLITINFER_CACHE to a folder") from None
        return folder / f"{_digest([self._key, versions, processor])}-{part}.onnx"

    def _content(self, used: Sequence[fx.Node], made: Sequence[fx.Node]) -> bytes:
        """Return a half as ONNX: out of the whole model, or by itself where that cannot be."""
        if self._has_whole and {*used} <= {*self._takes, *self._gives} and {*made} <= {*self._gives}:
            try:
                whole = self._whole()
                names = dict(zip(self._takes, (one.name for one in whole.graph.input), strict=True))
                names |= zip(self._gives, (one.name for one in whole.graph.output), strict=True)
                half = onnx_files.cut_out(whole, [names[node] for node in used], [names[node] for node in made])
                content: bytes = half.SerializeToString()
            except Exception as error:  # noqa: BLE001 - exporters fail in any way; other halves may still do
                logger.info("a half is exported by itself: %s", error)
            else:
                return content
        return export_onnx(*part_module(self.order, self.weights, used, made))

    def _whole(self) -> Any:
        import onnx

        path = self._path("whole")
        try:
            return onnx.load(onnx_files.believed(path))
        except Exception:  # noqa: BLE001 - not there, or damaged
            self._has_whole = False  # an export that fails is not tried for every half
        content = export_onnx(*part_module(self.order, self.weights, self._takes, self._gives))
        path.unlink(missing_ok=True)  # whose permissions a new one would take
        with replacing(path) as part:
            part.write_bytes(content)
            part.chmod(0o600)
        self._has_whole = True
        return onnx.load_from_string(content)


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
