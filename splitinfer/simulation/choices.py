"""What the scheduler chooses from: a service's cuts, and the codec in which each sends what crosses.

A policy sees a table with one row per choice, as it sees cuts; it need not know that some rows are the same cut in
different codecs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitinfer.errors import ScenarioError
from splitinfer.profiling.profile import CutRecord, Profile, TensorRecord
from splitinfer.simulation.fields import spread_over_services
from splitinfer.wire.codecs import CODECS, Codec
from splitinfer.wire.dtypes import DTYPES

CUT_SETS = ("all", "blocks", "pareto", "sets")


@dataclass(frozen=True)
class Choice:
    """One action of a service.

    Attributes:
        cut: k.
        codec: that crosses in; empty where nothing crosses, and where ``bits_per_element`` stands for one.
        bits: of one task on the wire.
        encode_cycles: of the device, to encode them.
    """

    cut: int
    codec: str
    bits: float
    encode_cycles: float = 0.0

    def __str__(self) -> str:
        return f"{self.cut} {self.codec}".rstrip()


def choices_of(
    profile: Profile,
    *,
    cycles_per_mac: float,
    bits_per_element: float,
    cuts: str = "all",
    codecs: Sequence[str] | None = None,
    min_accuracy: float | None = None,
) -> tuple[Choice, ...]:
    """Return what a service may choose, by rising work of the device; the last keeps everything there.

    Args:
        profile: of the model.
        cycles_per_mac: rho of the device.
        bits_per_element: where no codec is named.
        cuts: ``all``; ``blocks``, those after a block of the network (``layer1.0``); ``pareto``; or ``sets``, likewise
            of all cuts and the profile's set cuts.
        codecs: that it may send in. With several, what another choice beats or equals in both the device's work, with
            encoding, and bits is left out.
        min_accuracy: least share of unchanged answers, by the profile's codec records. Codecs that change bits and
            whose answers were not measured are left out unless it is 0; without ``codecs`` those measured and ``raw``
            may be used.

    Raises:
        ScenarioError: no codec is left.
    """
    allowed = _allowed(profile, codecs, min_accuracy)
    measured = {(one.cut, one.codec): one for one in profile.codecs}
    found = []
    for cut in (*(profile.set_cuts if cuts == "sets" else ()), *profile.cuts):  # K comes last
        if cuts == "blocks" and not _ends_block(profile.cuts, cut.index):
            continue
        if cut.index == profile.num_cuts:
            found.append(Choice(cut.index, "", 0.0))
        elif allowed is None:
            found.append(Choice(cut.index, "", float(cut.crossing_elements * bits_per_element)))
        else:
            before = len(found)
            for codec in allowed:
                seen = measured.get((cut.index, codec.name))
                same = 1.0 if codec.exact else None if seen is None else seen.same_top
                if not min_accuracy or (same is not None and same >= min_accuracy):
                    bits = coded_bits(cut, codec) if seen is None else seen.bits
                    found.append(Choice(cut.index, codec.name, bits, encode_cycles(cut, codec)))
            if before == len(found) and cut.index == 0:
                raise ScenarioError(
                    f"min_accuracy: no codec of {profile.model} is known to keep {min_accuracy:g} of the answers at "
                    "cut 0; allow raw, or measure with 'splitinfer profile NAME --codecs --save FILE'"
                )
    if cuts in ("pareto", "sets") or (allowed is not None and (len(allowed) > 1 or min_accuracy is not None)):
        found = _undominated(found, [profile.cut(one.cut).macs_before * cycles_per_mac for one in found])
    return tuple(found)


def choices_of_devices(
    profiles: Sequence[Sequence[Profile]],
    *,
    rho: Callable[[int, str], float],
    bits_per_element: float,
    cuts: str,
    codecs: str | Sequence[str] | Sequence[Sequence[str]] | None,
    min_accuracy: Any,
) -> tuple[tuple[tuple[Choice, ...], ...], ...]:
    """Return what each service of each device may choose.

    Args:
        profiles: of the services of each device.
        rho: cycles per MAC of a device and a model.
        bits_per_element, cuts: as ``choices_of``.
        codecs: one for all services, a set that all choose from, or a set for each.
        min_accuracy: one for all services, one for each, or one list per device.

    Raises:
        ScenarioError: a number or length does not fit, or no codec is left.
    """
    services = [len(own) for own in profiles]
    if min_accuracy is not None:
        spread = spread_over_services(min_accuracy, services, "min_accuracy")
        if (spread > 1).any():
            raise ScenarioError("min_accuracy: must be between 0 and 1")
    sets = _codec_sets(codecs, max(services))
    made: dict[Any, tuple[Choice, ...]] = {}  # devices mostly host the same
    rows = []
    for device, own in enumerate(profiles):
        row = []
        for service, profile in enumerate(own):
            accuracy = None if min_accuracy is None else float(spread[device, service])
            cycles_per_mac = rho(device, profile.model)
            key = id(profile), sets[service], accuracy, cycles_per_mac
            if key not in made:
                made[key] = choices_of(
                    profile,
                    cycles_per_mac=cycles_per_mac,
                    bits_per_element=bits_per_element,
                    cuts=cuts,
                    codecs=sets[service],
                    min_accuracy=accuracy,
                )
            row.append(made[key])
        rows.append(tuple(row))
    return tuple(rows)


def cut_places(
    cuts: Any,
    profiles: Sequence[Sequence[Profile]],
    choices: Sequence[Sequence[Sequence[Choice]]],
    field: str,
) -> NDArray[np.int64]:
    """Return the places of cuts among the choices, shape (M, N); of a cut in several codecs, that of the fewest bits.

    Args:
        cuts: one per service, or one list per device.
        profiles, choices: of the services of each device.
        field: name for the error.

    Raises:
        ScenarioError: a cut is out of range or left out, or the lengths do not fit.
    """
    if isinstance(cuts, np.ndarray):
        cuts = cuts.tolist()
    table = spread_over_services(cuts, [len(own) for own in profiles], field).astype(np.int64)
    for device, services in enumerate(choices):
        for service, own in enumerate(services):
            wanted, profile = int(table[device, service]), profiles[device][service]
            offered = [place for place, one in enumerate(own) if one.cut == wanted]
            if not offered and not 0 <= wanted <= profile.num_cuts:  # set cuts are numbered far beyond K
                raise ScenarioError(
                    f"{field}: cut {wanted} of service {service} on device {device} is not in "
                    f"0..{profile.num_cuts} ({profile.model})"
                )
            if not offered:
                known = ", ".join(dict.fromkeys(str(one.cut) for one in own))
                raise ScenarioError(
                    f"{field}: cut {wanted} of {profile.model} is not among those it may choose: {known}"
                )
            _, table[device, service] = min((own[place].bits, place) for place in offered)
    return table


def _codec_sets(
    codecs: str | Sequence[str] | Sequence[Sequence[str]] | None, services: int
) -> list[tuple[str, ...] | None]:
    """The codecs that each service may send in."""
    if codecs is None or isinstance(codecs, str):
        return [None if codecs is None else (codecs,)] * services
    if not codecs or not all(codecs):
        raise ScenarioError("codecs: a list of them needs at least one")
    if isinstance(codecs[0], str):
        return [tuple(map(str, codecs))] * services
    if len(codecs) != services:
        raise ScenarioError(f"codecs: has lists for {len(codecs)} services, but there are {services}")
    return [tuple(names) for names in codecs]


def coded_bits(cut: CutRecord, codec: Codec) -> float:
    """Return a codec's estimate of the bits that cross at a cut; tensors that it does not take travel raw."""
    return sum(_bits_of(tensor, codec) for tensor in cut.crossing)


def _bits_of(tensor: TensorRecord, codec: Codec) -> float:
    dtype = DTYPES.get(tensor.dtype)
    if dtype is None or not codec.takes(dtype):
        return tensor.bits
    return tensor.elements * codec.bits_per_element(dtype)


def encode_cycles(cut: CutRecord, codec: Codec) -> float:
    """Return a codec's estimate of the device's cycles to encode what crosses at a cut."""
    return _coded_elements(cut, codec) * getattr(codec, "encode_cycles_per_element", 0.0)


def decode_cycles(cut: CutRecord, codec: Codec) -> float:
    """Return a codec's estimate of the cycles to decode what crosses at a cut, on one core of the edge."""
    return _coded_elements(cut, codec) * getattr(codec, "decode_cycles_per_element", 0.0)


def _coded_elements(cut: CutRecord, codec: Codec) -> int:
    taken = ((DTYPES.get(tensor.dtype), tensor.elements) for tensor in cut.crossing)
    return sum(elements for dtype, elements in taken if dtype is not None and codec.takes(dtype))


def _allowed(profile: Profile, names: Sequence[str] | None, min_accuracy: float | None) -> list[Codec] | None:
    if names is None:
        if min_accuracy is None:
            return None
        names = ["raw", *{one.codec: None for one in profile.codecs}]
    by_name: dict[str, Codec] = {}
    for codec in CODECS:
        by_name.setdefault(codec.name, codec)
    return [by_name[name] for name in dict.fromkeys(names) if name in by_name]


def _undominated(choices: Sequence[Choice], head_cycles: Sequence[float]) -> list[Choice]:
    """Those that no other beats in one of device work and bits and equals in the other, by rising work."""
    work = [cycles + one.encode_cycles for one, cycles in zip(choices, head_cycles, strict=True)]
    kept: list[Choice] = []
    last = choices[-1]  # everything on the device
    for index in sorted(range(len(choices)), key=lambda i: (work[i], choices[i].bits, choices[i].cut)):
        if choices[index] is not last and (not kept or choices[index].bits < kept[-1].bits):
            kept.append(choices[index])
    return [*kept, last]


_BLOCK = re.compile(r"(?:[^.\d]+\.)*[^.]*\d[^.]*(?:\.\d+(?=\.|$))*")


def _block(name: str) -> str:
    """A layer's name up to its first number, with numbers that follow: ``layer1.0`` of ``layer1.0.conv1``."""
    found = _BLOCK.match(name)
    return found.group() if found else name


def _ends_block(cuts: Sequence[CutRecord], k: int) -> bool:
    return k in (0, len(cuts) - 1) or _block(cuts[k].name) != _block(cuts[k + 1].name)
