"""``splitinfer export``: the halves of a model as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from splitinfer.errors import InputError


def export(
    model: Annotated[str, typer.Argument(help="A model's name, package.module:factory, or a card file.")],
    cut: Annotated[str, typer.Option(help="Cut after this layer's name, or an index 0..K.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for head, tail and manifest.")],
    format: Annotated[
        str,
        typer.Option(help="onnx (safe to open from others), pt2 (torch's own; from others it is code), executorch."),
    ] = "onnx",
) -> None:
    """Write head, tail and a manifest of one cut: fingerprint, tensors, preprocessing, checksums.

    An ONNX head runs on a device without torch: splitinfer infer DIR --server HOST:PORT.

    Example:
      splitinfer export resnet18 --cut layer2.0.conv1 --format onnx --out resnet18-head
    """
    from splitinfer.artifacts.manifest import FORMATS

    if format not in FORMATS:
        raise InputError(f"--format: must be one of {', '.join(FORMATS)}, not {format!r}")
    from splitinfer.artifacts.export import export as write
    from splitinfer.models import load_card
    from splitinfer.runtime.loading import capture_card

    card = load_card(model)
    split = capture_card(card)
    manifest = write(split, split.find_cut(cut), out, format=format, card=card)
    for side, name in (("head", manifest.head), ("tail", manifest.tail)):
        what = "nothing to compute"
        if name is not None:
            what = f"{out / name}, {(out / name).stat().st_size / 2**20:.1f} MiB"
        print(f"{side}: {what}")
    print(f"{manifest.model}, cut {manifest.cut} of {manifest.num_cuts} after {manifest.layer}")
    if format == "pt2":
        print("a .pt2 file from others is code: open only those that you wrote")
    print(f"wrote {out}")
