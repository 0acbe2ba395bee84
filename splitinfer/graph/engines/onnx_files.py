"""Halves as files for ONNX Runtime: cut out of one export of the whole model, optimised, each weight kept once.

A folder holds::

    <model>-whole.onnx   the model, with what crosses any cut among its outputs
    <model>-<half>.onnx  operations of a half as ONNX Runtime optimised them for this processor, and its small weights
    <digest>.npy         a large weight as the optimised halves read it

ONNX Runtime lays weights out anew for the processor, in the same way in every half, so that equal ones are found by
their digest. A process reads each once, for all sessions of all halves.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from splitinfer.files import is_ours, replacing
from splitinfer.threads import checked_threads

if TYPE_CHECKING:
    import onnx

SHARED_BYTES = 1024
"""Weights of at least this size are files of their own."""

_MATRICES = ("Gemm", "FusedGemm", "MatMul", "FusedMatMul")
_LINE_BYTES = 64
in_use: set[Path] = set()
"""Files that halves of this process were read from or written to."""

_values: WeakValueDictionary[Path, Any] = WeakValueDictionary()
_lock = threading.Lock()


class Half:
    """A half that ONNX Runtime runs.

    Attributes:
        session: the runtime's.
        inputs: names of what it takes, in order.
        matrix_bytes: of the weights that ONNX Runtime packs for each session.
    """

    def __init__(self, session: Any, values: Sequence[Any], matrix_bytes: int) -> None:
        self.session = session
        self.inputs = [one.name for one in session.get_inputs()]
        self.matrix_bytes = matrix_bytes
        self._values = values  # the session reads their memory


def cut_out(whole: onnx.ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.ModelProto:
    """Return the operations of a model that lead from some tensors to others.

    Raises:
        ValueError: they need other tensors as well.
    """
    from onnx.utils import Extractor

    half = Extractor(whole).extract_model(list(inputs), list(outputs))
    known = {*inputs, "", *(one.name for one in half.graph.initializer)}
    for node in half.graph.node:
        if missing := [name for name in node.input if name not in known]:
            raise ValueError(f"{node.name} needs {missing[0]}")
        known.update(node.output)
    if missing := [name for name in outputs if name not in known]:
        raise ValueError(f"nothing makes {missing[0]}")
    return half


def save_half(content: bytes, path: Path) -> None:
    """Optimise a half for this processor and write it, and those of its weights that are not there yet, into a folder.

    Raises:
        Exception: ONNX Runtime refuses it, with a class of its own.
        OSError: the folder cannot be written.
    """
    import onnx
    import onnxruntime
    from onnx import numpy_helper

    in_use.add(path)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        options = session_options(threads=1)
        options.optimized_model_filepath = str(Path(scratch) / "half.onnx")
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        half = onnx.load(options.optimized_model_filepath)
    for weight in half.graph.initializer:
        array = numpy_helper.to_array(weight)
        if array.nbytes < SHARED_BYTES or array.dtype.kind not in "fiub":
            continue
        kind = repr((array.shape, array.dtype.str)).encode()
        name = f"{hashlib.sha256(kind + array.tobytes()).hexdigest()[:32]}.npy"
        in_use.add(path.parent / name)
        if not _is_there(path.parent / name, array):
            (path.parent / name).unlink(missing_ok=True)  # whose permissions a new one would take
            with replacing(path.parent / name) as part:
                np.save(part, array)
                part.chmod(0o600)  # what others could write is not believed
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=name)
    path.unlink(missing_ok=True)
    with replacing(path) as part:
        part.write_bytes(half.SerializeToString())
        part.chmod(0o600)


def open_half(path: Path, threads: int, *, pack_bytes: float) -> Half:
    """Open a half that ``save_half`` wrote.

    Args:
        path: of the half.
        threads: of one operation.
        pack_bytes: most memory for matrices packed anew for this session, bytes; with less, it reads them as they are.

    Raises:
        Exception: a file is missing or damaged; many classes.
    """
    import onnx
    import onnxruntime

    half = onnx.load(believed(path), load_external_data=False)
    _touch(path)
    read = {node.input[1] for node in half.graph.node if node.op_type in _MATRICES}
    options = session_options(threads)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is optimised
    values, matrix_bytes = [], 0
    for weight in half.graph.initializer:
        if weight.data_location != onnx.TensorProto.EXTERNAL:
            continue
        value = _value(path.parent / Path(weight.external_data[0].value).name)
        options.add_initializer(weight.name, value)
        values.append(value)
        if weight.name in read:
            matrix_bytes += value.numpy().nbytes
    if matrix_bytes > pack_bytes:
        options.add_session_config_entry("session.disable_prepacking", "1")
        matrix_bytes = 0
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Half(session, values, matrix_bytes)


def believed(path: Path) -> Path:
    """Return a path of a kept file, which computes answers.

    Raises:
        OSError: it is not there, or others than this user could have written it.
    """
    if not is_ours(path):
        raise PermissionError(errno.EPERM, "others may write it", str(path))
    return path


def session_options(threads: int) -> Any:
    """Return options of a session with so many threads, none of which spins."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = checked_threads(threads)
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it refuses it raises, too
    options.enable_cpu_mem_arena = False  # a session would keep its largest run's memory; as fast without
    # Threads that spin while they wait take the cores from torch, which is many times slower beside them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _is_there(path: Path, array: NDArray[Any]) -> bool:
    try:
        kept = np.load(believed(path), mmap_mode="r")
    except (OSError, ValueError, EOFError):  # not there, or damaged
        return False
    return (kept.shape, kept.dtype) == (array.shape, array.dtype)


def _value(path: Path) -> Any:
    """Return a weight, which a process reads once."""
    import onnxruntime

    with _lock:
        value = _values.get(path)
        if value is None:
            value = onnxruntime.OrtValue.ortvalue_from_numpy(_aligned(np.load(believed(path), mmap_mode="r")))
            _touch(path)
            _values[path] = value
        return value


def _touch(path: Path) -> None:
    """Say that a file is used: what was used longest ago makes room."""
    in_use.add(path)
    with contextlib.suppress(OSError):
        os.utime(path)


def _aligned(array: NDArray[Any]) -> NDArray[Any]:
    """Return a copy that begins where a cache line does, without which kernels take up to 10 % longer."""
    room = np.empty(array.nbytes + _LINE_BYTES, np.uint8)
    start = -room.ctypes.data % _LINE_BYTES
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    np.copyto(copy, array)
    return copy
