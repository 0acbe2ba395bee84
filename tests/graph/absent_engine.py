"""An engine whose package is not installed."""

from __future__ import annotations

from splitinfer.errors import MissingExtraError

raise MissingExtraError("onnxruntime", "onnx")
