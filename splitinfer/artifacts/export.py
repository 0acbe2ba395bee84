"""Write the halves of a captured model as ONNX, PyTorch's own or ExecuTorch files, with a manifest."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import fx

from splitinfer.artifacts.manifest import FORMATS, Manifest, describe, file_checksum
from splitinfer.errors import CaptureError, InputError, MissingExtraError
from splitinfer.graph.engines.export import export_onnx, part_module

if TYPE_CHECKING:
    from collections.abc import Sequence

    from splitinfer.graph import SplitModel
    from splitinfer.models import ModelCard

_SUFFIX = {"onnx": ".onnx", "pt2": ".pt2", "executorch": ".pte"}
_NEEDS = {"onnx": ("onnx", "onnx"), "pt2": ("torch", "torch"), "executorch": ("executorch", "executorch")}


def export(split: SplitModel, k: int, folder: Path, *, format: str, card: ModelCard | None = None) -> Manifest:
    """Write head, tail and manifest of one cut.

    Args:
        split: the captured model.
        k: the cut; at 0 there is no head, at K no tail.
        folder: where; made if it does not exist, refused if it holds anything but an earlier export.
        format: ``"onnx"``, ``"pt2"`` (which is code when it comes from others) or ``"executorch"``.
        card: whose preprocessing and labels go into the manifest.

    Raises:
        InputError: no such format or cut, or the folder cannot be written.
        MissingExtraError: what the format needs is not installed.
        CaptureError: the half cannot be exported; the message names the format's own reason.
    """
    if format not in FORMATS:
        raise InputError(f"format: must be one of {', '.join(FORMATS)}, not {format!r}")
    package, extra = _NEEDS[format]
    if find_spec(package) is None or (format == "onnx" and find_spec("onnxscript") is None):
        raise MissingExtraError(package if find_spec(package) is None else "onnxscript", extra)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = [entry.name for entry in folder.iterdir() if entry.name not in _own_files()]
    except OSError as error:
        raise InputError(f"--out: cannot write {folder}: {error.strerror}") from None
    if foreign:
        raise InputError(f"--out: {folder} holds other files ({foreign[0]}); choose an empty folder")
    crossing = split._crossing_nodes[k] if k < split.num_cuts else split._program.outputs
    names: dict[str, str | None] = {"head": None, "tail": None}
    sides: dict[str, tuple[Sequence[fx.Node], Sequence[fx.Node]]] = {}
    if k > 0:
        sides["head"] = split._program.inputs, crossing
    if k < split.num_cuts:
        sides["tail"] = crossing, split._program.outputs
    for side, (arguments, results) in sides.items():
        name = f"{side}{_SUFFIX[format]}"
        try:
            content = _export(split, arguments, results, format)
        except Exception as error:  # exporters fail in any way
            line = (str(error).strip().splitlines() or [""])[0]
            raise CaptureError(
                f"the {side} of {split.name} at cut {k} cannot be exported as {format}: {type(error).__name__}: {line}"
            ) from error
        (folder / name).write_bytes(content)
        names[side] = name
    manifest = Manifest(
        format=format,  # type: ignore[arg-type]
        model=split.name,
        fingerprint=split.fingerprint,
        cut=k,
        layer=split.cuts[k].name,
        num_cuts=split.num_cuts,
        inputs=tuple(map(describe, split.inputs)),
        crossing=tuple(map(describe, split.cuts[k].crossing)) if k < split.num_cuts else (),
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
    import io

    order = [node for node in split._captured.graph.nodes if node.op != "output"]
    module, examples = part_module(order, split._captured.weights, arguments, results)
    if kind == "onnx":
        return export_onnx(module, examples)
    program = torch.export.export(module, examples)
    if kind == "pt2":
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        return buffer.getvalue()
    from executorch.exir import to_edge

    content: bytes = to_edge(program).to_executorch().buffer
    return content
