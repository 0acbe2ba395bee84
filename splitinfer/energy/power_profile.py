"""Device cards from Android's ``power_profile.xml``: what phone makers publish of their cores and radios."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from splitinfer.energy.card import DeviceCard
from splitinfer.errors import InputError
from splitinfer.files import check_file
from splitinfer.records import wrong_field

MAX_BYTES = 1_000_000
"""Largest profile read; real ones have some kilobytes."""

BATTERY_V = 3.85
"""Nominal cell voltage, where the profile's currents are drawn from the battery."""

_SPEEDS = ("cpu.core_speeds.cluster{}", "cpu.speeds.cluster{}")
_POWERS = ("cpu.core_power.cluster{}", "cpu.active.cluster{}")


def card_fields(
    path: str | Path, *, voltage_v: float = BATTERY_V, cycles_per_mac: float = 0.12, max_bytes: int = MAX_BYTES
) -> dict[str, Any]:
    """Return the fields of a device card (TOML-ready) from a power profile.

    Args:
        path: of the XML file.
        voltage_v: that turns the battery's milliamperes into watts.
        cycles_per_mac: rho; a power profile does not tell it, ``splitinfer calibrate`` on the device does.
        max_bytes: largest file read.

    Raises:
        InputError: the file is absent, is no power profile, or has no table of CPU speeds; the line names the item.
    """
    file = Path(path)
    items, arrays = _read(file, max_bytes)
    source = f"{file.name}: mA at {voltage_v:g} V; cycles per MAC assumed, to be calibrated"
    about = {"source": source, "licence": "that of the power profile"}
    cores: list[dict[str, Any]] = []
    for cluster in range(64):
        hz, ma = (_first(arrays, [name.format(cluster) for name in names]) for names in (_SPEEDS, _POWERS))
        if hz is None and cluster == 0:
            hz, ma = arrays.get("cpu.speeds"), arrays.get("cpu.active")
        if hz is None:
            break
        if ma is None or len(ma) != len(hz):
            raise InputError(
                f"power profile: cluster {cluster} has {len(hz)} speeds and {0 if ma is None else len(ma)} powers"
            )
        cores.append(
            {
                "name": f"cluster{cluster}",
                "frequency_hz": [speed * 1e3 for speed in hz],
                "watts": [round(current * 1e-3 * voltage_v, 6) for current in ma],
                "cycles_per_mac": cycles_per_mac,
                **about,
            }
        )
    if not cores:
        raise InputError(f"power profile: {file.name} has no cpu.core_speeds.cluster0 and cpu.core_power.cluster0")
    radios: dict[str, Any] = {}
    wifi_ma = items.get("wifi.controller.tx", items.get("wifi.active"))
    if wifi_ma:
        volts = items.get("wifi.controller.voltage", voltage_v * 1e3) * 1e-3
        radios["wifi"] = {"circuit_w": round(wifi_ma * 1e-3 * volts, 6), "max_power_w": 0.1, **about}
    levels = arrays.get("modem.controller.tx") or ([items["radio.active"]] if items.get("radio.active") else [])
    if levels:
        volts = items.get("modem.controller.voltage", voltage_v * 1e3) * 1e-3
        low, high = min(levels) * 1e-3 * volts, max(levels) * 1e-3 * volts
        # The levels go up to full power, 23 dBm for handsets: the rise is what the amplifier draws for it.
        radios["cellular"] = {"circuit_w": round(low, 6), "max_power_w": 0.2, **about}
        if high > low:
            radios["cellular"]["amplifier_efficiency"] = round(0.2 / (high - low), 6)
    if not radios:
        raise InputError(f"power profile: {file.name} has neither wifi.controller.tx nor modem.controller.tx")
    fields = {
        "description": f"imported from {file.name}",
        "core": max(cores, key=lambda core: float(max(core["frequency_hz"])))["name"],
        "radio": next(iter(radios)),
        "cores": cores,
        "radios": radios,
    }
    try:
        DeviceCard.model_validate({"name": "imported", **fields})
    except ValidationError as error:
        raise InputError(f"power profile: {file.name}: {wrong_field(error, DeviceCard, fields)}") from None
    return fields


def _read(file: Path, max_bytes: int) -> tuple[dict[str, float], dict[str, list[float]]]:
    try:
        check_file(file, max_bytes=max_bytes)
        root = ElementTree.fromstring(file.read_bytes())
    except OSError as error:
        raise InputError(f"power profile: cannot read {file}: {error.strerror}") from None
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # an encoding that there is not
        raise InputError(f"power profile: {file.name} is no XML: {error}") from None
    if root.tag != "device":
        raise InputError(f"power profile: {file.name} is no power profile: its root is <{root.tag}>, not <device>")
    items: dict[str, float] = {}
    arrays: dict[str, list[float]] = {}
    for element in root:
        name = element.get("name", "")
        if element.tag == "item":
            items[name] = _number(element.text, file, name)
        elif element.tag == "array":
            arrays[name] = [_number(value.text, file, name) for value in element.iter("value")]
    return items, arrays


def _number(text: str | None, file: Path, name: str) -> float:
    try:
        return float(text or "")
    except ValueError:
        raise InputError(f"power profile: {file.name}: {name} holds {text!r}, which is no number") from None


def _first(arrays: dict[str, list[float]], names: list[str]) -> list[float] | None:
    return next((arrays[name] for name in names if name in arrays), None)
