"""``splitinfer export``: the halves of a model as files."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from splitinfer.errors import InputError


def export(
    model: Annotated[str, typer.Argument(help="A model's name, package.module:factory, or a card file.")],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for head, tail and manifest; of several cuts a folder for each.")
    ],
    cut: Annotated[
        list[str] | None,
        typer.Option(help="Cut after this layer's name, an index 0..K, or a set cut; may be repeated."),
    ] = None,
    cuts: Annotated[
        str | None, typer.Option(metavar="pareto", help="Instead: every cut that a policy may find best.")
    ] = None,
    format: Annotated[
        str,
        typer.Option(help="onnx (safe to open from others), pt2 (torch's own; from others it is code), executorch."),
    ] = "onnx",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export in DIR.")] = False,
) -> None:
    """Write head, tail and a manifest of a cut: fingerprint, tensors, preprocessing, checksums.

    Files are run on a real input and compared with torch before they are kept. An ONNX head runs on a device without
    torch: splitinfer infer DIR --server HOST:PORT. Several cuts, DIR/3, DIR/13 and so on, are for live runs, where
    the edge chooses: splitinfer device --heads DIR.

    Example:
      splitinfer export resnet18 --cut layer2.0.conv1 --format onnx --out resnet18-head
      splitinfer export resnet18 --cuts pareto --out resnet18-heads
    """
    from splitinfer.artifacts.manifest import FORMATS

    if format not in FORMATS:
        raise InputError(f"--format: must be one of {', '.join(FORMATS)}, not {format!r}")
    if bool(cut) == (cuts is not None) or cuts not in (None, "pareto"):
        raise InputError("give --cut CUT, once or more, or --cuts pareto")
    earlier = next(chain(out.glob("manifest.json"), out.glob("*/manifest.json")), None)
    if earlier is not None and not overwrite:
        raise InputError(f"--out: {earlier.parent} holds an export; --overwrite replaces it")
    from splitinfer.artifacts.export import export as write
    from splitinfer.artifacts.export import pareto
    from splitinfer.cli.infer_report import cut_in_words
    from splitinfer.cli.output import say
    from splitinfer.models import load_card
    from splitinfer.runtime.loading import capture_card

    card = load_card(model)
    say(f"capturing {card.name}")
    split = capture_card(card)
    wanted = sorted({split.find_cut(one) for one in cut}) if cut else pareto(split)
    for k in wanted:
        say(f"writing cut {k} as {format}, and running it")
        folder = out if cut and len(cut) == 1 else out / str(k)
        manifest = write(split, k, folder, format=format, card=card)
        for side, name in (("head", manifest.head), ("tail", manifest.tail)):
            what = "nothing to compute"
            if name is not None:
                what = f"{folder / name}, {(folder / name).stat().st_size / 2**20:.1f} MiB"
            print(f"{side}: {what}")
        print(f"{manifest.model}, {cut_in_words(manifest.cut, manifest.num_cuts)} after {manifest.layer}")
    if format == "pt2":
        print("a .pt2 file from others is code: open only those that you wrote")
    print(f"wrote {out}")
