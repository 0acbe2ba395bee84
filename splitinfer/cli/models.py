"""``splitinfer models``: what can be profiled and served."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array of cards and nothing else.")] = False,
) -> None:
    """List the model cards: what can be profiled and served by name.

    Example:
      splitinfer models
    """
    from splitinfer.cli.output import print_table
    from splitinfer.models import list_cards
    from splitinfer.profiling import Profile
    from splitinfer.profiling.shipped import shipped_profile_path

    cards = list_cards()
    if as_json:
        print(json.dumps([card.model_dump(mode="json") for card in cards]))
        return
    rows = []
    for card in cards:
        known = Profile.load(shipped_profile_path(card.name))
        size = " + ".join("x".join(map(str, spec.shape)) for spec in card.inputs)
        rows.append(
            [
                card.name,
                size,
                f"{known.total_macs / 1e9:.3f}",
                f"{known.parameters / 1e6:.2f}",
                str(known.num_cuts),
                card.task,
            ]
        )
    print_table(["model", "input", "GMACs", "M params", "K", "XR task"], rows, left=("model", "input", "XR task"))
    print()
    print("Any other model: package.module:factory, or the path of a card file of your own (docs/model_cards.md).")
