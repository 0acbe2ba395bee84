"""``splitinfer advise``: whether and where to split a model."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from splitinfer.cli.options import AsJson
from splitinfer.errors import InputError

_SHOWN = 10


def advise(
    model: Annotated[str, typer.Argument(help="A model's name, a card file, or a profile's JSON file.")],
    bandwidth: Annotated[str, typer.Option(metavar="RATE", help="Of the way up: 20Mbps, 800kbps.")],
    rtt: Annotated[str, typer.Option(metavar="TIME", help="Round trip: 10ms.")] = "10ms",
    downlink: Annotated[
        str | None,
        typer.Option(metavar="RATE", help="Of the answer's way back: 50Mbps. Left out: the answer takes no time."),
    ] = None,
    device: Annotated[str, typer.Option(metavar="CARD", help="Device card: see splitinfer devices.")] = "paper",
    edge: Annotated[
        float, typer.Option(min=0.001, metavar="GMACS", help="How fast the edge computes, GMACs/s.")
    ] = 160.0,
    objective: Annotated[str, typer.Option(help="latency, energy or bits.")] = "latency",
    min_accuracy: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Least share of unchanged answers; codecs are judged by the profile."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Rank every cut and codec of a model for a link, a device and an edge, and say when not to split.

    Codecs that change bits count where the profile has measured them: splitinfer profile NAME --codecs --save FILE,
    then advise FILE.

    Example:
      splitinfer advise resnet50 --bandwidth 20Mbps --rtt 10ms --device pixel6:wifi
      splitinfer advise resnet50 --bandwidth 2Mbps --objective energy --device snapdragon865:lte --json
    """
    from splitinfer.cli.output import print_table
    from splitinfer.energy.card import load_device
    from splitinfer.experiments.advise import OBJECTIVES, parse_rate_bps, parse_time_s
    from splitinfer.experiments.advise import advise as find
    from splitinfer.simulation.services import profile_of

    chosen = next((one for one in OBJECTIVES if one == objective), None)
    if chosen is None:
        raise InputError(f"--objective: must be {', '.join(OBJECTIVES)}, not {objective!r}")
    rate, delay = parse_rate_bps(bandwidth), parse_time_s(rtt)
    down = parse_rate_bps(downlink, "--downlink") if downlink is not None else None
    card = load_device(device)
    profile = profile_of(model if Path(model).suffix != ".json" or Path(model).is_file() else _absent(model))
    advice = find(
        profile,
        card,
        bandwidth_bps=rate,
        rtt_s=delay,
        edge_macs_per_s=edge * 1e9,
        objective=chosen,
        min_accuracy=min_accuracy,
        downlink_bps=down,
    )
    if as_json:
        record = {
            "model": profile.model,
            "device": card.name,
            "bandwidth_bps": rate,
            "rtt_s": delay,
            "downlink_bps": down,
            "output_bits": profile.output_bits,
            "objective": objective,
            "options": [asdict(one) | {"total_s": one.total_s, "limit": one.limit} for one in advice.options],
            "refused": advice.refused,
            "changes": [{"bandwidth_bps": at, "cut": cut} for at, cut in advice.changes],
            "advice": advice.words,
        }
        print(json.dumps(record))
        return
    back = "" if down is None else f", {profile.output_bits / 8192:.1f} KiB back at {down / 1e6:g} Mbit/s"
    print(
        f"{profile.model} on {card.name} ({card.used_core.name}, {card.radio}), {rate / 1e6:g} Mbit/s up, "
        f"{delay * 1e3:g} ms round trip{back}, edge {edge:g} GMACs/s; best {objective} first"
    )
    print()
    rows = [
        [
            str(one.cut),
            one.layer,
            one.codec or "-",
            f"{one.head_s * 1e3:.1f}",
            f"{one.wire_s * 1e3:.1f}",
            f"{one.tail_s * 1e3:.1f}",
            f"{one.total_s * 1e3:.1f}",
            f"{one.energy_j * 1e3:.2f}",
            f"{one.bits / 8192:.1f}",
            one.limit,
        ]
        for one in advice.options[:_SHOWN]
    ]
    columns = ["k", "after layer", "codec", "head ms", "wire ms", "tail ms", "total ms", "mJ", "KiB", "limited by"]
    print_table(columns, rows, left=("after layer", "codec", "limited by"))
    print()
    print(advice.words)
    for at, cut in advice.changes:
        print(f"from {at / 1e6:.3g} Mbit/s on, cut {cut} ({profile.cuts[cut].name}) is best")
    for reason, count in advice.refused.items():
        print(f"left out: {count} with {reason}")


def _absent(model: str) -> str:
    raise InputError(f"there is no file {model}")
