"""Exported halves on a device without torch: ONNX Runtime and numpy alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitinfer.artifacts.manifest import MANIFEST, Manifest, Tensor
from splitinfer.errors import InputError, MissingExtraError
from splitinfer.models.pictures import MAX_PIXELS, picture_array
from splitinfer.runtime.exchange import ModelId
from splitinfer.threads import checked_threads


class ExportedHead:
    """The head of an exported model; its tail too, which is opened when it is first run.

    Args:
        folder: that ``splitinfer export --format onnx`` wrote.
        threads: of one operation.

    Attributes:
        manifest: of the folder.
        model: what requests to the edge name.

    Raises:
        InputError: the folder is none, a file is damaged, or the format is another one.
        MissingExtraError: onnxruntime is not installed.
    """

    def __init__(self, folder: str | Path, *, threads: int = 1) -> None:
        self.manifest = manifest = Manifest.load(folder)
        if manifest.format != "onnx":
            raise InputError(f"artifact {folder}: a {manifest.format} head runs only where torch is; export it as onnx")
        if find_spec("onnxruntime") is None:
            raise MissingExtraError("onnxruntime", "device")
        self.model = ModelId(manifest.model, manifest.cut_fingerprint or manifest.fingerprint)
        self._folder, self._threads = Path(folder), checked_threads(threads)
        self._head = self._open(manifest.head, manifest.inputs)
        self._tail: Any = None

    def _open(self, name: str | None, takes: Sequence[Tensor]) -> Any:
        """Return a session of a file of the folder; None where that side computes nothing."""
        if name is None:
            return None
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 4  # what it refuses it raises, too
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            # A file can name others as its weights: none of this machine's, whose bytes would go to the edge.
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
            content = (self._folder / name).read_bytes()
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - the runtime refuses files with classes of its own
            raise InputError(f"artifact {self._folder}: {name} cannot be run: {_line(error)}") from None
        if len(session.get_inputs()) != len(takes):
            count = len(session.get_inputs())
            raise InputError(f"artifact {self._folder}: {name} takes {count} tensors, {MANIFEST} says {len(takes)}")
        return session

    def preprocess(self, picture: Any, *, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
        """Return the first input for a picture (a path or a PIL image), with a batch dimension of 1.

        Raises:
            InputError: the manifest has no preprocessing, or the picture cannot be used.
        """
        manifest = self.manifest
        if manifest.preprocessing is None or len(manifest.inputs) != 1:
            raise InputError(f"artifact of {manifest.model}: it takes no picture; give its inputs as .npz")
        spec = manifest.inputs[0]
        height, width = spec.shape[-2:]
        pixels = picture_array(picture, manifest.preprocessing, (height, width), (height, width), max_pixels=max_pixels)
        return pixels.astype(spec.dtype)

    def __call__(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """Return what crosses the cut, or the answer's leaves at K.

        Raises:
            InputError: the inputs are not of the manifest's shapes and dtypes.
        """
        manifest = self.manifest
        gives = manifest.outputs if manifest.tail is None else manifest.crossing
        return self._run(self._head, manifest.head, inputs, manifest.inputs, gives)

    def run_tail(self, *tensors: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the answer's leaves for what crosses the cut.

        Raises:
            InputError: the tensors are not of the manifest's shapes and dtypes, or the file is damaged.
        """
        manifest = self.manifest
        if self._tail is None:
            self._tail = self._open(manifest.tail, manifest.crossing)
        return self._run(self._tail, manifest.tail, tensors, manifest.crossing or manifest.outputs, manifest.outputs)

    def _run(
        self,
        session: Any,
        name: str | None,
        inputs: Sequence[NDArray[Any]],
        wanted: Sequence[Tensor],
        gives: Sequence[Tensor],
    ) -> list[NDArray[Any]]:
        if len(inputs) != len(wanted):
            raise InputError(f"{self.manifest.model} has {len(wanted)} inputs, got {len(inputs)}")
        arrays = [np.ascontiguousarray(array) for array in inputs]
        for number, (array, spec) in enumerate(zip(arrays, wanted, strict=True)):
            if array.shape != spec.shape or str(array.dtype) != spec.dtype:
                raise InputError(
                    f"input {number} of {self.manifest.model} must be {spec.dtype} {spec.shape}, got {array.dtype} "
                    f"{array.shape}"
                )
        if session is None:
            return arrays
        feed = {one.name: array for one, array in zip(session.get_inputs(), arrays, strict=True)}
        try:
            made: list[NDArray[Any]] = session.run(None, feed)
        except Exception as error:  # noqa: BLE001 - the runtime fails with classes of its own
            raise InputError(f"artifact {self._folder}: {name} cannot be run: {_line(error)}") from None
        if [(one.shape, str(one.dtype)) for one in made] != [(one.shape, one.dtype) for one in gives]:
            raise InputError(f"artifact {self._folder}: {name} gives other tensors than {MANIFEST} says")
        return made


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
