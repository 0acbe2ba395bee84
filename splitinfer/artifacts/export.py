"""Write the halves of a captured model as ONNX, PyTorch's own or ExecuTorch files, with a manifest."""

from __future__ import annotations

import io
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import fx

from splitinfer.artifacts.manifest import FORMATS, MANIFEST, Manifest, describe, file_checksum
from splitinfer.errors import CaptureError, InputError, MissingExtraError
from splitinfer.files import alone_in, is_abandoned, replacing
from splitinfer.graph.engines.export import export_executorch, export_onnx, part_module
from splitinfer.models.photos import shipped_photo
from splitinfer.scheduling import pareto_cuts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from splitinfer.graph import SplitModel
    from splitinfer.models import ModelCard

_SUFFIX = {"onnx": ".onnx", "pt2": ".pt2", "executorch": ".pte"}
_NEEDS = {
    "onnx": (("onnx", "onnxscript", "onnxruntime"), "onnx"),
    "pt2": ((), ""),
    "executorch": (("executorch", "torchao"), "executorch"),
}
CHECK_TOLERANCE = 1e-4
"""Largest error of a written half against torch, relative to the largest magnitude of a tensor."""


def export(split: SplitModel, k: int, folder: Path, *, format: str, card: ModelCard | None = None) -> Manifest:
    """Write head, tail and manifest of one cut, after running each file on a real input beside torch.

    Args:
        split: the captured model.
        k: the cut; at 0 there is no head, at K no tail.
        folder: where; made if it does not exist, refused if it holds anything but an earlier export.
        format: ``"onnx"``, ``"pt2"`` (which is code when it comes from others) or ``"executorch"``.
        card: whose preprocessing and labels go into the manifest.

    Raises:
        InputError: no such format or cut, or the folder cannot be written.
        MissingExtraError: what the format needs is not installed.
        CaptureError: the half cannot be exported, or its file answers otherwise than torch; the message says why.
    """
    if format not in FORMATS:
        raise InputError(f"format: must be one of {', '.join(FORMATS)}, not {format!r}")
    packages, extra = _NEEDS[format]
    for package in packages:
        if find_spec(package) is None:
            raise MissingExtraError(package, extra)
    try:
        with alone_in(folder):
            return _write(split, k, folder, format, card)
    except BlockingIOError:
        raise InputError(f"--out: another export writes into {folder} now; name another folder") from None
    except OSError as error:
        raise InputError(f"--out: cannot write {folder}: {error.strerror}") from None


def _write(split: SplitModel, k: int, folder: Path, format: str, card: ModelCard | None) -> Manifest:
    entries = [entry for entry in folder.iterdir() if not is_abandoned(entry)]
    foreign = [entry.name for entry in entries if entry.name not in _own_files()]
    if foreign:
        raise InputError(f"--out: {folder} holds other files ({foreign[0]}); choose an empty folder")
    example = _example(split, card)
    crossing = split.crossing_nodes(k)
    names: dict[str, str | None] = {"head": None, "tail": None}
    sides: dict[str, tuple[Sequence[fx.Node], Sequence[fx.Node]]] = {}
    if k > 0:
        sides["head"] = split._program.inputs, crossing
    if k != split.num_cuts:
        sides["tail"] = crossing, split._program.outputs
    for side, (arguments, results) in sides.items():
        name = f"{side}{_SUFFIX[format]}"
        given = example if side == "head" else split.run_head(k, *example)
        expected = split.run_head(k, *example) if side == "head" else split.run_tail_leaves(k, given)
        try:
            content = _export(split, arguments, results, format)
            _check(_run(content, given, format), expected)
        except Exception as error:  # exporters fail in any way
            line = (str(error).strip().splitlines() or [""])[0]
            raise CaptureError(
                f"the {side} of {split.name} at cut {k} cannot be exported as {format}: {type(error).__name__}: {line}"
            ) from error
        # An earlier export is no more from here on; its manifest must not stand beside other files.
        (folder / MANIFEST).unlink(missing_ok=True)
        with replacing(folder / name) as part:
            part.write_bytes(content)
        names[side] = name
    manifest = Manifest(
        format=format,  # type: ignore[arg-type]
        model=split.name,
        fingerprint=split.fingerprint,
        cut_fingerprint=split.fingerprint_at(k) if split.is_set_cut(k) else None,
        cut=k,
        layer=split.cut(k).name,
        num_cuts=split.num_cuts,
        inputs=tuple(map(describe, split.inputs)),
        crossing=tuple(map(describe, split.cut(k).crossing)),
        outputs=tuple(map(describe, split.outputs)),
        head=names["head"],
        tail=names["tail"],
        checksums={name: file_checksum(folder / name) for name in names.values() if name is not None},
        preprocessing=None if card is None else card.preprocessing,
        labels=None if card is None else card.class_names(),
        versions={package: _version(package) for package in ("splitinfer", "torch", "onnx", "executorch")},
    )
    manifest.save(folder)
    return manifest


def _own_files() -> set[str]:
    return {"manifest.json", *(f"{side}{suffix}" for side in ("head", "tail") for suffix in _SUFFIX.values())}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _export(split: SplitModel, arguments: Sequence[fx.Node], results: Sequence[fx.Node], kind: str) -> bytes:
    order = [node for node in split._captured.graph.nodes if node.op != "output"]
    module, examples = part_module(order, split._captured.weights, arguments, results)
    if kind == "onnx":
        return export_onnx(module, examples)
    if kind == "executorch":
        return export_executorch(module, examples)
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(module, examples), buffer)
    return buffer.getvalue()


def pareto(split: SplitModel) -> list[int]:
    """Return the cuts between 0 and K at which neither the head's MACs nor the crossing bits can be lowered alone.

    Those of cuts 0..K, and the set cuts besides.
    K where there is none: the whole model is the two halves of any cut, and cut 0 needs no file.
    """
    macs = np.array([cut.macs_before for cut in split.cuts], np.float64)
    bits = np.array([sum(tensor.bits for tensor in cut.crossing) for cut in split.cuts], np.float64)
    found = [int(k) for k in pareto_cuts(macs, bits) if 0 < k < split.num_cuts]
    return [*found, *(cut.index for cut in split.set_cuts)] or [split.num_cuts]


def _example(split: SplitModel, card: ModelCard | None) -> tuple[torch.Tensor, ...]:
    """A photograph where the model takes one, random tensors else."""
    if card is not None and card.preprocessing is not None and len(card.inputs) == 1:
        return (card.preprocess(shipped_photo()),)
    if card is not None:
        return card.example_inputs()
    made = (torch.rand(spec.shape, generator=torch.Generator().manual_seed(0)) for spec in split.inputs)
    return tuple(one.to(spec.dtype) for one, spec in zip(made, split.inputs, strict=True))


def _run(content: bytes, tensors: Sequence[torch.Tensor], kind: str) -> list[torch.Tensor]:
    """Run a file as those who get it will."""
    if kind == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        feed = {one.name: t.contiguous().numpy() for one, t in zip(session.get_inputs(), tensors, strict=True)}
        return [torch.from_numpy(array) for array in session.run(None, feed)]
    if kind == "pt2":
        return list(torch.export.load(io.BytesIO(content)).module()(*tensors))
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(content)
    return list(program.load_method("forward").execute([tensor.contiguous() for tensor in tensors]))


def _check(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
    for index, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
        if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
            raise ValueError(
                f"tensor {index} is {mine.dtype}{tuple(mine.shape)}, not {theirs.dtype}{tuple(theirs.shape)}"
            )
        scale = float(theirs.double().abs().max()) if theirs.numel() else 0.0
        if not torch.allclose(mine.double(), theirs.double(), rtol=0.0, atol=CHECK_TOLERANCE * scale, equal_nan=True):
            raise ValueError(f"tensor {index} is more than {CHECK_TOLERANCE:.0e} of its largest value off")
