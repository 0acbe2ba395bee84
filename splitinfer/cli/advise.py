"""``splitinfer advise``: whether and where to split a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitinfer.cli.options import AsJson, ClientCert, TlsCa, TlsKey, TokenFile
from splitinfer.errors import InputError

if TYPE_CHECKING:
    from splitinfer.experiments.advise import Option
    from splitinfer.profiling.profile import Profile
    from splitinfer.runtime.security import ClientSecurity

_SHOWN = 10
_VALIDATED = 3
_REPEATS = 10


def advise(
    model: Annotated[str, typer.Argument(help="A model's name, a card file, or a profile's JSON file.")],
    bandwidth: Annotated[str, typer.Option(metavar="RATE", help="Of the way up: 20Mbps, 800kbps.")],
    rtt: Annotated[str, typer.Option(metavar="TIME", help="Round trip: 10ms.")] = "10ms",
    downlink: Annotated[
        str | None,
        typer.Option(metavar="RATE", help="Of the answer's way back: 50Mbps. Left out: the answer takes no time."),
    ] = None,
    device: Annotated[
        str,
        typer.Option(metavar="CARD|FILE", help="Device card (see splitinfer devices), or calibrate's file from there."),
    ] = "paper",
    edge: Annotated[
        str,
        typer.Option(metavar="GMACS|FILE", help="How fast the edge computes, GMACs/s, or calibrate's file from there."),
    ] = "160",
    objective: Annotated[str, typer.Option(help="latency, energy or bits.")] = "latency",
    min_accuracy: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Least share of unchanged answers; codecs are judged by the profile."),
    ] = None,
    validate: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Measure the best three from here against this server of MODEL."),
    ] = None,
    emulate_link: Annotated[
        bool,
        typer.Option("--emulate-link", help="Slow the way to that server down to --bandwidth and --rtt."),
    ] = False,
    repeat: Annotated[
        int | None, typer.Option(min=1, help=f"Inferences measured of each, for --validate; {_REPEATS} by default.")
    ] = None,
    tls_ca: TlsCa = None,
    tls_cert: ClientCert = None,
    tls_key: TlsKey = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Rank every cut and codec of a model for a link, a device and an edge, and say when not to split.

    Codecs that change bits count where the profile has measured what they do to answers: splitinfer profile NAME
    --codecs --save FILE, then advise FILE.

    Example:
      splitinfer advise resnet50 --bandwidth 20Mbps --rtt 10ms --device pixel6:wifi
      splitinfer advise resnet50 --bandwidth 2Mbps --objective energy --device snapdragon865:lte --json
      splitinfer advise resnet18 --bandwidth 20Mbps --device device.toml --edge edge.toml
      splitinfer advise resnet18 --bandwidth 20Mbps --validate 127.0.0.1:50051 --emulate-link
    """
    from splitinfer.cli.output import print_table, shown_layer
    from splitinfer.energy.card import load_device
    from splitinfer.experiments.advise import OBJECTIVES, PICTURE_FILE, edge_speed, parse_rate_bps, parse_time_s
    from splitinfer.experiments.advise import advise as find
    from splitinfer.simulation.services import profile_of

    chosen = next((one for one in OBJECTIVES if one == objective), None)
    if chosen is None:
        raise InputError(f"--objective: must be {', '.join(OBJECTIVES)}, not {objective!r}")
    if validate is None and (emulate_link or repeat or tls_ca or tls_cert or tls_key or token_file):
        raise InputError(
            "--emulate-link, --repeat, --tls-* and --token-file are for a server: give --validate HOST:PORT too"
        )
    if emulate_link and tls_ca:
        raise InputError("--emulate-link: a certificate is not for the relay between; leave out --tls-ca")
    rate, delay = parse_rate_bps(bandwidth), parse_time_s(rtt)
    down = parse_rate_bps(downlink, "--downlink") if downlink is not None else None
    card = load_device(device)
    profile = profile_of(model if Path(model).suffix != ".json" or Path(model).is_file() else _absent(model))
    speed = edge_speed(edge, profile.model)
    advice = find(
        profile,
        card,
        bandwidth_bps=rate,
        rtt_s=delay,
        edge_macs_per_s=speed.macs_per_s,
        edge_core_hz=speed.core_hz,
        objective=chosen,
        min_accuracy=min_accuracy,
        downlink_bps=down,
    )
    compared = None
    if validate is not None:
        from splitinfer.runtime.security import ClientSecurity

        security = ClientSecurity(tls_ca, tls_cert, tls_key, token_file)
        tensors = [one for one in advice.options if one.codec != PICTURE_FILE][:_VALIDATED]
        compared = _compare(profile, tensors, model, validate, security, rate, delay, emulate_link, repeat or _REPEATS)
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
        if compared is not None:
            record["validated"] = [asdict(one) for one in compared]
        print(json.dumps(record))
        return
    back = "" if down is None else f", {profile.output_bits / 8192:.1f} KiB back at {_shown_rate(down, 6)}"
    print(
        f"{profile.model} on {card.name} ({card.used_core.name}, {card.radio}), {_shown_rate(rate, 6)} up, "
        f"{delay * 1e3:g} ms round trip{back}, edge {speed.words}; best {objective} first"
    )
    print()
    rows = [
        [
            str(one.cut),
            shown_layer(one.layer),
            one.codec or "-",
            f"{one.head_s * 1e3:.1f}",
            f"{one.encode_s * 1e3:.1f}",
            f"{one.wire_s * 1e3:.1f}",
            f"{one.decode_s * 1e3:.1f}",
            f"{one.tail_s * 1e3:.1f}",
            f"{one.total_s * 1e3:.1f}",
            f"{one.energy_j * 1e3:.2f}",
            f"{one.bits / 8192:.1f}",
            one.limit,
        ]
        for one in advice.options[:_SHOWN]
    ]
    times = ["head ms", "encode", "wire", "decode", "tail", "total"]
    columns = ["k", "after layer", "codec", *times, "mJ", "KiB", "limited by"]
    print_table(columns, rows, left=("after layer", "codec", "limited by"))
    print()
    print(advice.words)
    if profile.codecs_from:
        print(f"bits of codecs: {profile.codecs_from}")
    if any(one.codec == PICTURE_FILE for one in advice.options):
        print(f"{PICTURE_FILE}: decoded and preprocessed at the edge; every other way begins with the model's input")
    for at, cut in advice.changes:
        print(f"from {_shown_rate(at, 3)} on, cut {cut} ({profile.cut(cut).name}) is best")
    for reason, count in advice.refused.items():
        print(f"left out: {count} {reason}")
    if compared is not None:
        _show_compared(compared, emulate_link=emulate_link)


def _shown_rate(bps: float, digits: int) -> str:
    """A number and a unit that --bandwidth takes."""
    units = (1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s"), (1.0, "bit/s")
    unit, name = next((one for one in units if bps >= one[0]), units[-1])
    return f"{float(f'{bps / unit:.{digits}g}'):g} {name}"


@dataclass(frozen=True)
class _Compared:
    """A way as it was predicted for the card, as its parts and the link predict it here, and as it was seen."""

    cut: int
    codec: str
    predicted_s: float
    predicted_bits: float
    from_parts_s: float
    seen_s: float
    seen_head_s: float
    seen_wire_s: float
    seen_tail_s: float
    seen_bits: float


def _compare(
    profile: Profile,
    best: Sequence[Option],
    model: str,
    target: str,
    security: ClientSecurity,
    rate: float,
    delay: float,
    emulate_link: bool,
    repeats: int,
) -> list[_Compared]:
    from splitinfer.graph.engines import set_threads
    from splitinfer.models import load_card
    from splitinfer.profiling.codecs import sample_photos
    from splitinfer.runtime import ClientSettings, EdgeClient
    from splitinfer.runtime.emulation.relay import LinkRelay
    from splitinfer.runtime.loading import capture_card
    from splitinfer.runtime.transport import checked_target
    from splitinfer.runtime.validation import measure_ways

    set_threads(1)
    card = load_card(profile.model, in_file=True) if model.endswith(".json") else load_card(model)
    target = checked_target(target)
    with EdgeClient(target, ClientSettings(security=security)) as near:
        near.describe()  # before what takes long, and by its own address where there is a relay
    split = capture_card(card)
    held, known = list(split.cuts), list(profile.cuts)
    if any(one.cut > split.num_cuts for one in best):
        held, known = [*held, *split.set_cuts], [*known, *profile.set_cuts]
    if [cut.macs_before for cut in held] != [cut.macs_before for cut in known]:
        raise InputError(
            f"--validate: the profile is not of {card.name} as it is now; splitinfer profile makes it anew"
        )
    # Bits after compression are those of photographs.
    inputs = card.example_inputs() if card.preprocessing is None else (card.preprocess(sample_photos()[0]),)
    with ExitStack() as stack:
        settings = ClientSettings(security=security)
        client = stack.enter_context(EdgeClient(target, settings))
        direct: EdgeClient | None = None
        if emulate_link:
            direct, relay = client, stack.enter_context(LinkRelay(target, bandwidth_bps=rate, rtt_s=delay))
            client = stack.enter_context(EdgeClient(relay.address, settings))
        ways = [(one.cut, one.codec) for one in best]
        seen = measure_ways(
            client, split, inputs, ways, bandwidth_bps=rate, rtt_s=delay, repeats=repeats, direct=direct
        )
    return [
        _Compared(
            one.cut,
            one.codec,
            one.total_s,
            one.bits,
            was.parts_s,
            was.total_s,
            was.head_s,
            was.wire_s,
            was.tail_s,
            was.bits,
        )
        for one, was in zip(best, seen, strict=True)
    ]


def _show_compared(compared: Sequence[_Compared], *, emulate_link: bool) -> None:
    from splitinfer.cli.output import print_table

    print()
    link = "over an emulated link" if emulate_link else "over the link that there is"
    print(f"measured {link}, medians; from parts: the head alone here, the tail asked without")
    print("the link, and the bits that were sent over the bandwidth, with the round trip; off by: seen")
    print("beside what was predicted")
    rows = [
        [
            str(one.cut),
            one.codec or "-",
            f"{one.seen_s * 1e3:.1f}",
            f"{one.predicted_s * 1e3:.1f}",
            f"{one.seen_s / one.predicted_s - 1:+.0%}",
            f"{one.from_parts_s * 1e3:.1f}",
            f"{one.seen_s / one.from_parts_s - 1:+.0%}",
            f"{one.seen_head_s * 1e3:.1f}",
            f"{one.seen_wire_s * 1e3:.1f}",
            f"{one.seen_tail_s * 1e3:.1f}",
            f"{one.predicted_bits / 8192:.1f}",
            f"{one.seen_bits / 8192:.1f}",
        ]
        for one in compared
    ]
    times = ["seen ms", "for the card", "off by", "from parts", "off by", "head", "wire", "tail"]
    columns = ["k", "codec", *times, "KiB predicted", "sent"]
    print_table(columns, rows, left=("codec",))


def _absent(model: str) -> str:
    raise InputError(f"there is no file {model}")
