"""``splitinfer devices``: the device cards."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from splitinfer.cli.options import AsJson


def devices(
    name: Annotated[str | None, typer.Argument(help="A card, or its TOML file: show its numbers and sources.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the device cards: what processors and radios draw, for scenarios, advise and calibration.

    nJ per cycle is the least that the core needs, at the frequency beside it: slower is not always cheaper.

    Example:
      splitinfer devices
      splitinfer devices pixel6:lte
    """
    import numpy as np

    from splitinfer.cli.output import print_table
    from splitinfer.energy.card import device_names, load_device

    cards = [load_device(one) for one in ([name] if name else device_names())]
    if as_json:
        print(json.dumps([card.model_dump(mode="json") for card in cards]))
        return
    rows = []
    for card in cards:
        core, radio = card.used_core, card.used_radio
        at = np.array(core.frequency_hz or np.linspace(0.05, 1.0, 96) * core.limit_hz)
        per_cycle = np.array([core.power_w(float(f)) / f for f in at])
        best = int(np.flatnonzero(per_cycle <= per_cycle.min() * (1 + 1e-9))[-1])
        _, misfit = core.cubic_fit()
        draw = [
            f"{part * scale:.3g} {unit}"
            for part, scale, unit in (
                (radio.circuit_w, 1, "W"),
                (0.0 if radio.amplifier_efficiency is None else 1 / radio.amplifier_efficiency, 1, "x radiated"),
                (radio.bit_j, 1e9, "nJ/bit"),
            )
            if part
        ]
        rows.append(
            [
                card.name,
                core.name,
                f"{core.limit_hz / 1e9:.2f}",
                f"{core.power_w(core.limit_hz):.2f}",
                f"{per_cycle[best] * 1e9:.3f} at {at[best] / 1e9:.2f}",
                f"{misfit:.0%}",
                f"{core.cycles_per_mac:g}",
                card.radio,
                " + ".join(draw),
            ]
        )
    print_table(
        ["card", "core", "F^l GHz", "W at F^l", "nJ/cycle, GHz", "f^3 misfit", "cycles/MAC", "radio", "draws"],
        rows,
        left=("card", "core", "radio", "draws"),
    )
    print()
    if name is None:
        print("Use one with --device CARD, CARD:RADIO or CARD:CORE, or give the path of a card file of your own.")
        return
    for core in cards[0].cores:
        print(f"core {core.name}: {core.source} ({core.licence})")
        for hz, watts in zip(core.frequency_hz, core.watts, strict=True):
            print(f"  {hz / 1e9:.3f} GHz  {watts:.3f} W  {watts / hz * 1e9:.3f} nJ/cycle")
        if not core.watts:
            law = f"{core.base_w:g} + {core.linear_j * 1e9:g} f + {core.energy_coefficient * 1e27:g} f^3"
            print(f"  {law} W (f in GHz), up to {core.limit_hz / 1e9:.2f} GHz")
    for radio_name, radio in cards[0].radios.items():
        print(f"radio {radio_name}: {radio.source} ({radio.licence})")
