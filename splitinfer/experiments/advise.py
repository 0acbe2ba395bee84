"""Whether and where to split a model: every cut and codec by latency, energy or bits, from a profile and a device card.

    head:  share of the model · MACs · cycles per MAC / F    on the device's core at its highest frequency
    code:  cycles to encode / F                              on the device
    wire:  bits / bandwidth + round trip + call              nothing at k = K
           + bits of the answer / downlink                   where a downlink is given
    open:  cycles to decode / F of one core                  at the edge; of a picture's file, preprocessing too
    tail:  the other share · MACs / MACs per second          at the edge
    J:     head and encoding · P(F)  +  sending time · what the radio draws at full power

The share is that of the time where the profile has measured both halves at the cut, else that of the MACs: some layers
take several times as long for a MAC as others.

Bits, and the times to encode and decode, are measured where the profile has codecs, else the codec's estimates for each
tensor's dtype. A call is what both ends and gRPC take for any request, and what its bytes take to be copied.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from splitinfer.energy.calibration import load_calibration
from splitinfer.energy.card import DeviceCard
from splitinfer.energy.transmitter import radio_power_w
from splitinfer.errors import InputError
from splitinfer.profiling.profile import CutRecord, Profile
from splitinfer.simulation.choices import coded_bits, decode_cycles, encode_cycles
from splitinfer.wire.codecs import CODECS, Codec

Objective = Literal["latency", "energy", "bits"]
OBJECTIVES: tuple[Objective, ...] = ("latency", "energy", "bits")

PICTURE_FILE = "jpeg"
"""What a camera's file is sent as, unchanged, so that the answer is that of the same file on the device."""

CALL_S = 1.5e-3
"""Of any request, without the link: threads that wake, headers, gRPC at both ends (``benchmarks.transport``)."""

BYTE_S = 1.0e-9
"""For each byte of a request, in the same places."""

EDGE_CORE_HZ = 3.0e9
"""Of the core that decodes at the edge, which takes one, however many compute the tail."""

FILE_CYCLES_PER_PIXEL = 45.0
"""To decode a JPEG file and make a model's input of it (Pillow: 640 x 427 pixels to 224 x 224)."""

_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_PARAMETER_BITS = 32


@dataclass(frozen=True)
class Option:
    """One way to run the model.

    Attributes:
        cut, layer: where it is cut; K runs everything on the device. Set cuts are numbered from 100,000 on.
        codec: how tensors are sent; empty at K.
        head_s, encode_s: on the device.
        wire_s: over the link, and what a call takes at its ends.
        decode_s, tail_s: at the edge; decoding a picture's file has its preprocessing in it.
        energy_j: of the device, an inference.
        bits: sent.
        same_top: measured share of unchanged answers; None where it was not measured.
        memory_bytes: weights of the head and its largest tensors, at least.
    """

    cut: int
    layer: str
    codec: str
    head_s: float
    encode_s: float
    wire_s: float
    decode_s: float
    tail_s: float
    energy_j: float
    bits: float
    same_top: float | None
    memory_bytes: float

    @property
    def total_s(self) -> float:
        """From the model's input, or the picture's file where that is sent, to the answer."""
        return self.head_s + self.encode_s + self.wire_s + self.decode_s + self.tail_s

    @property
    def limit(self) -> str:
        """What takes the longest."""
        parts = {"device": self.head_s + self.encode_s, "link": self.wire_s, "edge": self.decode_s + self.tail_s}
        return max(parts, key=parts.__getitem__)

    def value(self, objective: Objective) -> float:
        """What is to be small."""
        return {"latency": self.total_s, "energy": self.energy_j, "bits": self.bits}[objective]


@dataclass(frozen=True)
class Advice:
    """What was found.

    Attributes:
        options: those that the device can run and that are accurate enough, best first.
        refused: reasons for those that are not, each with how many it is about.
        changes: bandwidths (bit/s) at which another cut becomes the best, with that cut, rising.
        words: in a sentence or two.
    """

    options: tuple[Option, ...]
    refused: dict[str, int]
    changes: tuple[tuple[float, int], ...]
    words: str


_LEAST_BARE_BPS = 1000.0
"""A smaller number without a unit is taken for one that was forgotten."""


def parse_rate_bps(text: str, option: str = "--bandwidth") -> float:
    """Read ``20Mbps``, ``1.5 Mbit/s``, ``800kbps``, ``20 Mbit`` or a number of bit/s.

    Raises:
        InputError: the text is none, in bytes, or not above 0.
    """
    pattern = r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kmg]?)(?:i?bps|bits?(?:/s|ps)?|b/s)?\s*"
    match = re.fullmatch(pattern, text, flags=re.IGNORECASE)
    value = _number(match[1]) * _UNITS[match[2].lower()] if match else 0.0
    if not 0 < value < 1e15:
        raise InputError(f"{option}: write a rate such as 20Mbps or 800kbps, not {text!r}")
    if value < _LEAST_BARE_BPS and match is not None and text.strip() == match[1]:
        raise InputError(f"{option}: {text} of what? Write a rate such as {text.strip()}Mbps or {text.strip()}kbps")
    if match is not None and re.search(r"B(?:ps|/s)", text):
        bits = f"{8 * _number(match[1]):g}{match[2]}bps"
        raise InputError(f"{option}: {text.strip()} is in bytes; rates are in bits: write {bits}")
    return value


def parse_time_s(text: str) -> float:
    """Read ``10ms``, ``0.2s`` or a number of seconds below 1.

    Raises:
        InputError: the text is none, negative, or a larger number without a unit.
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:e-?[0-9]+)?)\s*(us|ms|s)?\s*", text)
    value = _number(match[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, None: 1.0}[match[2]] if match else -1.0
    if not 0 <= value < 1e6:
        raise InputError(f"--rtt: write a time such as 10ms or 0.2s, not {text!r}")
    if value >= 1 and match is not None and match[2] is None:
        raise InputError(f"--rtt: {text.strip()} of what? Write a time such as {text.strip()}ms or {text.strip()}s")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


@dataclass(frozen=True)
class EdgeSpeed:
    """How fast an edge is.

    Attributes:
        macs_per_s: of the tails.
        core_hz: of the core that decodes.
        words: for people.
    """

    macs_per_s: float
    core_hz: float
    words: str


def edge_speed(text: str, model: str) -> EdgeSpeed:
    """Read ``160``, in GMACs/s, or what ``splitinfer calibrate --out FILE`` found of the edge, of this model if it can.

    Raises:
        InputError: it is neither.
    """
    if text.endswith(".toml"):
        found = load_calibration(text, "--edge")
        macs_per_s = found.macs_per_s(model)
        return EdgeSpeed(macs_per_s, found.frequency_hz or EDGE_CORE_HZ, f"{text} ({macs_per_s / 1e9:.3g} GMACs/s)")
    value = _number(text)
    if not 1e-3 <= value < 1e9:
        raise InputError(
            f"--edge: write GMACs/s from 0.001 on, or the .toml file of splitinfer calibrate, not {text!r}"
        )
    return EdgeSpeed(value * 1e9, EDGE_CORE_HZ, f"{value:g} GMACs/s")


def options_of(
    profile: Profile,
    device: DeviceCard,
    *,
    bandwidth_bps: float,
    rtt_s: float,
    edge_macs_per_s: float,
    edge_core_hz: float = EDGE_CORE_HZ,
    codecs: Sequence[Codec] = CODECS,
    downlink_bps: float | None = None,
    files: bool = True,
) -> list[Option]:
    """Return every cut with every codec.

    Args:
        profile: of the model.
        device: its core, radio and memory.
        bandwidth_bps: of the way up.
        rtt_s: round trip, once per inference.
        edge_macs_per_s: how fast the edge computes.
        edge_core_hz: of the core that decodes there.
        codecs: that are considered.
        downlink_bps: of the answer's way back, which takes time and, as receiving, no energy here; None: it takes none.
        files: with the picture's own file at cut 0, where the profile knows its bits.

    Raises:
        InputError: a downlink, and a profile that does not know the model's outputs.
    """
    if downlink_bps is not None and not profile.outputs:
        raise InputError(f"advise: the profile of {profile.model} has no outputs; measure it again: splitinfer profile")
    answer_s = profile.output_bits / downlink_bps if downlink_bps is not None else 0.0
    core, radio = device.used_core, device.used_radio
    seconds_per_mac = core.rho(profile.model) / core.limit_hz
    busy_w = core.power_w(core.limit_hz)
    sending_w = radio_power_w(radio.row()[None], 0, radio.max_power_w, bandwidth_bps)
    measured = {(one.cut, one.codec): one for one in profile.codecs}
    found = []
    for cut in (*profile.cuts, *profile.set_cuts):
        share = _head_share(profile, cut)
        head_s = share * profile.total_macs * seconds_per_mac
        tail_s = (1 - share) * profile.total_macs / edge_macs_per_s
        if cut.head_weights is not None:
            weight_bits = float(cut.head_weights.bits)
        else:  # a profile of an older version: a share of the weights as large as that of the MACs
            weight_bits = profile.parameters * _PARAMETER_BITS * cut.macs_before / max(profile.total_macs, 1)
        memory = weight_bits / 8 + profile.input_bits / 8 + cut.crossing_bits / 8
        if cut.index == profile.num_cuts:
            found.append(Option(cut.index, cut.name, "", head_s, 0.0, 0.0, 0.0, 0.0, head_s * busy_w, 0.0, 1.0, memory))
            continue
        ways = []
        for codec in codecs:
            seen = measured.get((cut.index, codec.name))
            if seen is None and codec.name.endswith("+zstd"):
                continue  # what compression saves is not known without the values
            coding_s = encode_cycles(cut, codec) / core.limit_hz, decode_cycles(cut, codec) / edge_core_hz
            if seen is not None and seen.encode_s is not None:
                coding_s = seen.encode_s, seen.decode_s or 0.0
            same = 1.0 if codec.exact else None if seen is None else seen.same_top
            ways.append((codec.name, coded_bits(cut, codec) if seen is None else seen.bits, coding_s, same))
        if files and (cut.index, PICTURE_FILE) in measured:
            file = measured[cut.index, PICTURE_FILE]
            opening_s = _pixels(profile) * FILE_CYCLES_PER_PIXEL / edge_core_hz
            coding_s = (0.0, opening_s) if file.decode_s is None else (file.encode_s or 0.0, file.decode_s)
            ways.append((PICTURE_FILE, file.bits, coding_s, 1.0))
        for name, bits, (encode_s, decode_s), same in ways:
            sending_s = bits / bandwidth_bps
            wire_s = sending_s + rtt_s + answer_s + CALL_S + bits / 8 * BYTE_S
            energy_j = (head_s + encode_s) * busy_w + sending_s * sending_w
            times_s = head_s, encode_s, wire_s, decode_s, tail_s
            found.append(Option(cut.index, cut.name, name, *times_s, energy_j, bits, same, memory))
    return found


def _head_share(profile: Profile, cut: CutRecord) -> float:
    head, tail = cut.head_latency, cut.tail_latency
    if head is not None and tail is not None and head.median_s + tail.median_s > 0:
        return head.median_s / (head.median_s + tail.median_s)
    return cut.macs_before / max(profile.total_macs, 1)


def _pixels(profile: Profile) -> float:
    """Of a picture as the camera gives it: what the profile measured on, or as many as the model's input has."""
    whole = next((one.bits for one in profile.codecs if (one.cut, one.codec) == (0, "uint8")), 0.0)
    return whole / 24 or profile.input_elements / 3


def advise(
    profile: Profile,
    device: DeviceCard,
    *,
    bandwidth_bps: float,
    rtt_s: float,
    edge_macs_per_s: float,
    edge_core_hz: float = EDGE_CORE_HZ,
    objective: Objective = "latency",
    min_accuracy: float | None = None,
    codecs: Sequence[Codec] = CODECS,
    downlink_bps: float | None = None,
    files: bool = True,
) -> Advice:
    """Rank the ways to run a model.

    Args:
        profile, device, bandwidth_bps, rtt_s, edge_macs_per_s, edge_core_hz, codecs, downlink_bps, files: as
            ``options_of``.
        objective: what is to be small.
        min_accuracy: least share of unchanged answers; codecs that change bits and whose answers were not measured are
            left out unless it is 0. By default only codecs that keep every bit, and those measured to keep every
            answer.

    Raises:
        InputError: the device can run none.
    """

    def ranked(rate: float) -> tuple[list[Option], dict[str, int]]:
        kept, refused = [], dict[str, int]()
        for option in options_of(
            profile,
            device,
            bandwidth_bps=rate,
            rtt_s=rtt_s,
            edge_macs_per_s=edge_macs_per_s,
            edge_core_hz=edge_core_hz,
            codecs=codecs,
            downlink_bps=downlink_bps,
            files=files,
        ):
            reason = _refusal(option, device, 1.0 if min_accuracy is None else min_accuracy)
            if reason:
                refused[reason] = refused.get(reason, 0) + 1
            else:
                kept.append(option)
        return sorted(kept, key=lambda one: (one.value(objective), one.total_s, one.bits)), refused

    options, refused = ranked(bandwidth_bps)
    if not options:
        reasons = ", ".join(f"{count} {reason}" for reason, count in refused.items())
        raise InputError(f"advise: {device.name} can run no cut of {profile.model}: left out are {reasons}")
    changes, last = [], None
    for rate in np.geomspace(1e4, 1e10, 241):
        best = ranked(float(rate))[0][0].cut
        if best != last:
            if last is not None:
                changes.append((float(rate), best))
            last = best
    words = _words(profile, options, objective, bandwidth_bps, rtt_s)
    return Advice(tuple(options), refused, tuple(changes), words)


def _refusal(option: Option, device: DeviceCard, floor: float) -> str:
    """Why an option is left out, to stand after how many are; empty where it is not."""
    if device.memory_bytes is not None and option.memory_bytes > device.memory_bytes:
        return f"whose head does not fit into {device.memory_bytes / 1e9:.3g} GB"
    if option.same_top is None and floor > 0:
        return (
            "in codecs that change bits, with answers that the profile does not know (splitinfer profile NAME "
            "--codecs --save FILE measures those at Pareto cuts, --min-accuracy 0 does not ask)"
        )
    if option.same_top is not None and option.same_top < floor:
        return f"that leave less than {floor:.0%} of the answers unchanged"
    return ""


def _words(profile: Profile, options: list[Option], objective: Objective, bandwidth_bps: float, rtt_s: float) -> str:
    best = options[0]
    local = next((one for one in options if one.cut == profile.num_cuts), None)
    whole = next((one for one in options if one.cut == 0), None)
    if best.cut == profile.num_cuts:
        text = f"Do not split: all of {profile.model} on the device is best in {objective}."
        if whole is not None and objective == "latency":
            sending, here = whole.wire_s * 1e3, best.head_s * 1e3
            text += f" Sending the input alone takes {sending:.0f} ms, the whole model here {here:.0f} ms."
    elif best.cut == 0:
        what = "the picture's own file" if best.codec == PICTURE_FILE else "the input"
        text = f"Do not split: send {what} ({best.codec}, {best.bits / 8192:.0f} KiB) and compute at the edge."
    else:
        text = f"Split after {best.layer} (cut {best.cut}) and send {best.bits / 8192:.1f} KiB as {best.codec}."
        gains = []
        others = [("all on the device", local), ("sending the input", whole)]
        if best.cut > profile.num_cuts:
            inner = next((one for one in options if 0 < one.cut < profile.num_cuts), None)
            others += [] if inner is None else [(f"the best cut of the model's own order, {inner.layer}", inner)]
        for name, other in others:
            if other is not None and best.value(objective) > 0:
                gains.append(f"{other.value(objective) / best.value(objective):.2f}x better than {name}")
        text += f" In {objective} that is {', '.join(gains)}." if gains else ""
    return text if best.cut == profile.num_cuts else f"{text} The {best.limit} takes the longest."
