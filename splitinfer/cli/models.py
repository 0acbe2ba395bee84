"""``splitinfer models``: what can be profiled and served."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def models(
    everything: Annotated[
        bool, typer.Option("--all", help="Also the names of torchvision, and of timm and transformers where installed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array of cards and nothing else.")] = False,
) -> None:
    """List the model cards: what can be profiled and served by name.

    Example:
      splitinfer models
      splitinfer models --all
    """
    from splitinfer.cli.output import print_table
    from splitinfer.models import list_cards
    from splitinfer.profiling import Profile
    from splitinfer.profiling.shipped import shipped_profile_path

    cards = list_cards()
    if everything:
        _all([card.name for card in cards], as_json)
        return
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
    print("Any name of torchvision, timm:NAME and hf:NAME works as well: splitinfer models --all.")
    print("Any other model: package.module:factory, or the path of a card file of your own (docs/model_cards.md).")


def _all(cards: list[str], as_json: bool) -> None:
    from importlib.util import find_spec

    from splitinfer.models.libraries import library_names

    names = {"cards": cards} | library_names()
    if as_json:
        print(json.dumps(names))
        return
    for library, own in names.items():
        print(f"{library} ({len(own)}):")
        for name in own:
            print(f"  {name}")
    for package, extra in (("timm", "timm"), ("transformers", "hf")):
        if find_spec(package) is None:
            print(f"{package} is not installed; for its models: pip install 'splitinfer[{extra}]'")
