"""``splitinfer card``: a model card to start from."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path
from typing import Annotated

import typer

from splitinfer.errors import InputError


def card(
    action: Annotated[str, typer.Argument(metavar="new", help="Write a card.")],
    source: Annotated[str, typer.Argument(metavar="PACKAGE.MODULE:FACTORY", help="Calling it returns the model.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", metavar="[DTYPE:]SHAPE", help="Each input without the batch: 3x224x224, int64:16. In order."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="File to write; FACTORY.toml by default.")] = None,
) -> None:
    """Write the card of a model of your own, after running and capturing the model once at inputs of these shapes.

    That runs the module's code. Without --input, a model that takes one input is tried with a picture of 3x224x224.

    Example:
      splitinfer card new mynet:build
      splitinfer card new mynet:fuse --input 3x64x64 --input int64:16 --out fuse.toml
    """
    if action != "new":
        raise InputError(f"card: write card new PACKAGE.MODULE:FACTORY, not {action!r}")
    from splitinfer.cli.scenario import check_new
    from splitinfer.files import replacing
    from splitinfer.models.card import card_from
    from splitinfer.models.new_card import new_card
    from splitinfer.runtime.loading import capture_card

    file = out or Path(f"{source.rpartition(':')[2]}.toml")
    check_new(file)
    text = new_card(source, inputs)
    capture_card(card_from(tomllib.loads(text), name=file.stem, folder=Path(), where="card"))  # what no verb would take
    with replacing(file) as part:
        part.write_text(text, encoding="utf-8")
    print(f"wrote {file}; try it: splitinfer profile {shlex.quote(str(file))}")
