"""An exported head on a device without torch: ONNX Runtime and numpy alone."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitinfer.artifacts.manifest import Manifest
from splitinfer.errors import InputError, MissingExtraError
from splitinfer.models.pictures import MAX_PIXELS, picture_array
from splitinfer.runtime.exchange import ModelId


class ExportedHead:
    """The head of an exported model.

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
        self.model = ModelId(manifest.model, manifest.fingerprint)
        self._session: Any = None
        if manifest.head is not None:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.log_severity_level = 3
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            path = Path(folder) / manifest.head
            try:
                self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            except Exception as error:  # noqa: BLE001 - the runtime refuses files with classes of its own
                line = str(error).strip().splitlines()[0]
                raise InputError(f"artifact {folder}: {manifest.head} cannot be run: {line}") from None
            self._names = [one.name for one in self._session.get_inputs()]

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
        wanted = self.manifest.inputs
        if len(inputs) != len(wanted):
            raise InputError(f"{self.manifest.model} has {len(wanted)} inputs, got {len(inputs)}")
        arrays = [np.ascontiguousarray(array) for array in inputs]
        for number, (array, spec) in enumerate(zip(arrays, wanted, strict=True)):
            if array.shape != spec.shape or str(array.dtype) != spec.dtype:
                raise InputError(
                    f"input {number} of {self.manifest.model} must be {spec.dtype} {spec.shape}, got {array.dtype} "
                    f"{array.shape}"
                )
        if self._session is None:
            return arrays
        feed = dict(zip(self._names, arrays, strict=True))
        made: list[NDArray[Any]] = self._session.run(None, feed)
        return made
