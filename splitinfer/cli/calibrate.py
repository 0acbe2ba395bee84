"""``splitinfer calibrate``: the energy model's constants of this host."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitinfer.cli.options import AsJson, EngineName
from splitinfer.errors import InputError

if TYPE_CHECKING:
    from splitinfer.simulation import Scenario


def calibrate(
    models: Annotated[
        str | None,
        typer.Option(help="Models to time, separated by commas; the scenario's, or resnet50,mobilenet_v2."),
    ] = None,
    threads: Annotated[str, typer.Option(help="Numbers of threads, separated by commas.")] = "1",
    repeats: Annotated[int, typer.Option(min=1, help="Inferences of each.")] = 10,
    engine: EngineName = "torch",
    meter: Annotated[str, typer.Option(help="auto, rapl, nvml or none.")] = "auto",
    scenario: Annotated[
        str | None, typer.Option(help="Preset or TOML file to fit; --out is then a scenario ready to use.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the result as TOML.")] = None,
    device: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What calibrate wrote on the device: fit --scenario to it.")
    ] = None,
    edge: Annotated[Path | None, typer.Option(metavar="FILE", help="What calibrate wrote on the edge.")] = None,
    power_profile: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Android power_profile.xml: write its device card to --out instead."),
    ] = None,
    voltage: Annotated[float, typer.Option(min=0.1, help="Volts of the battery, for --power-profile.")] = 3.85,
    as_json: AsJson = False,
) -> None:
    """Measure this host's cycles per MAC for each model, and, with a meter, its energy coefficient.

    Where the host changed its frequency between models, P0, a and delta of P0 + a f + delta f^3 are fitted too. With
    --device and --edge nothing is measured: a scenario gets what was measured on two hosts. With --power-profile a
    phone maker's table becomes a device card.

    What the host does not tell is said, and stays as the scenario has it.

    Example:
      splitinfer calibrate --models resnet50,mobilenet_v2 --threads 1,2 --out device.toml
      splitinfer calibrate --scenario table2 --out here.toml
      splitinfer calibrate --scenario table2 --device device.toml --edge edge.toml --out world.toml
      splitinfer calibrate --power-profile power_profile.xml --out phone.toml
    """
    import tomli_w

    from splitinfer.cli.output import print_table
    from splitinfer.energy.calibration import calibrate as measure
    from splitinfer.energy.meter import find_meter
    from splitinfer.files import replacing
    from splitinfer.simulation import find_scenario

    if power_profile is not None:
        _import(power_profile, voltage, out, as_json)
        return
    counts = _thread_counts(threads)
    base = None if scenario is None else find_scenario(scenario)
    if models is not None:
        names = [name.strip() for name in models.split(",") if name.strip()]
    elif base is not None:
        names = list(dict.fromkeys(profile.model for own in base.profiles for profile in own))
    else:
        names = ["resnet50", "mobilenet_v2"]
    if base is not None and out is None:
        raise InputError("--scenario needs --out FILE for the fitted scenario")
    if out is not None and not out.absolute().parent.is_dir():
        raise InputError(f"--out: there is no folder {out.absolute().parent}")
    if device is not None or edge is not None:
        if base is None or out is None or device is None or edge is None:
            raise InputError("--device and --edge go together, with --scenario and --out FILE for the fitted scenario")
        _merge(base, device, edge, out, as_json)
        return
    found, about = find_meter(meter)
    result = measure(_runs(names, counts, engine), repeats=repeats, meter=found, engine=engine)
    if out is not None and base is not None:
        base.replace(**result.device_fields()).save(out)
    elif out is not None:
        with replacing(out) as part:
            part.write_text(tomli_w.dumps(result.to_dict()), encoding="utf-8")
    if as_json:
        print(json.dumps(result.to_dict() | {"meter": about, "missing": result.missing()}))
        return
    rows = [
        [
            one.model,
            str(one.threads),
            f"{one.macs / 1e6:,.1f}",
            f"{one.median_s * 1e3:.2f}",
            "-" if one.cycles_per_mac is None else f"{one.cycles_per_mac:.3f}",
            "-" if one.energy_coefficient is None else f"{one.energy_coefficient:.2e}",
        ]
        for one in result.timings
    ]
    print_table(["model", "threads", "MMACs", "ms", "cycles/MAC", "delta W s^3"], rows, left=("model",))
    for field, value in result.device_fields().items():
        print(f"{field} = {value:.4g}")
    law = result.power_law
    if law is not None:
        formula = f"{law.base_w:.3g} + {law.linear_j * 1e9:.3g} f + {law.energy_coefficient * 1e27:.3g} f^3"
        print(f"power = {formula} W (f in GHz), {law.error:.1%} off; delta f^3 alone {law.cubic_error:.1%}")
    print(f"computed by {engine}; {about}")
    for line in result.missing():
        print(line)
    if out is not None:
        print(f"wrote {out}")


def _merge(base: Scenario, device: Path, edge: Path, out: Path, as_json: bool) -> None:
    from splitinfer.energy.calibration import load_calibration

    names = list(dict.fromkeys(profile.model for own in base.profiles for profile in own))
    fields = load_calibration(edge, "--edge").edge_fields(names)
    load_calibration(device, "--device")
    base.replace(device=str(device), **fields).save(out)
    if as_json:
        print(json.dumps({"device": str(device), **fields}))
        return
    print(f"device = {device}")
    for field, value in fields.items():
        print(f"{field} = {value:.4g}, of the edge")
    print(f"wrote {out}")


def _import(profile: Path, voltage_v: float, out: Path | None, as_json: bool) -> None:
    import tomli_w

    from splitinfer.energy.power_profile import card_fields
    from splitinfer.files import replacing

    fields = card_fields(profile, voltage_v=voltage_v)
    if out is not None:
        if not out.absolute().parent.is_dir():
            raise InputError(f"--out: there is no folder {out.absolute().parent}")
        with replacing(out) as part:
            part.write_text(tomli_w.dumps(fields), encoding="utf-8")
    if as_json:
        print(json.dumps(fields))
    elif out is None:
        print(tomli_w.dumps(fields), end="")
    else:
        print(f"wrote {out}; see it with: splitinfer devices {out}")


def _thread_counts(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise InputError(f"--threads: write numbers of at least 1, for example 1,2, not {text!r}")
    return counts


def _runs(names: list[str], counts: list[int], engine: str) -> Iterator[tuple[str, int, int, Callable[[], object]]]:
    from splitinfer.graph.engines import set_threads
    from splitinfer.models import CaptureOptions, load_card
    from splitinfer.runtime.loading import capture_card

    for name in names:
        card = load_card(name)
        inputs = card.example_inputs()
        for threads in counts:
            set_threads(threads)
            split = capture_card(card, CaptureOptions(engine=engine))  # anew: halves may keep the number of threads
            yield split.name, threads, split.total_macs, partial(split, *inputs)
