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
    validate: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Measure the best three from here against this server of MODEL."),
    ] = None,
    emulate_link: Annotated[
        bool,
        typer.Option("--emulate-link", help="Slow the way to that server down to --bandwidth and --rtt."),
    ] = False,
    repeat: Annotated[int, typer.Option(min=1, help="Inferences measured of each, for --validate.")] = 10,
    tls_ca: TlsCa = None,
    tls_cert: ClientCert = None,
    tls_key: TlsKey = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Rank every cut and codec of a model for a link, a device and an edge, and say when not to split.

    Codecs that change bits count where the profile has measured them: splitinfer profile NAME --codecs --save FILE,
    then advise FILE.

    Example:
      splitinfer advise resnet50 --bandwidth 20Mbps --rtt 10ms --device pixel6:wifi
      splitinfer advise resnet50 --bandwidth 2Mbps --objective energy --device snapdragon865:lte --json
      splitinfer advise resnet18 --bandwidth 20Mbps --validate 127.0.0.1:50051 --emulate-link
    """
    from splitinfer.cli.output import print_table, shown_layer
    from splitinfer.energy.card import load_device
    from splitinfer.experiments.advise import OBJECTIVES, parse_rate_bps, parse_time_s
    from splitinfer.experiments.advise import advise as find
    from splitinfer.simulation.services import profile_of

    chosen = next((one for one in OBJECTIVES if one == objective), None)
    if chosen is None:
        raise InputError(f"--objective: must be {', '.join(OBJECTIVES)}, not {objective!r}")
    if validate is None and (emulate_link or tls_ca or tls_cert or tls_key or token_file):
        raise InputError("--emulate-link, --tls-* and --token-file are for a server: give --validate HOST:PORT too")
    if emulate_link and tls_ca:
        raise InputError("--emulate-link: a certificate is not for the relay between; leave out --tls-ca")
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
    compared = None
    if validate is not None:
        from splitinfer.runtime.security import ClientSecurity

        security = ClientSecurity(tls_ca, tls_cert, tls_key, token_file)
        link = {"bandwidth_bps": rate, "rtt_s": delay} if emulate_link else None
        compared = _compare(profile, advice.options[:_VALIDATED], model, validate, security, link, repeat)
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
    back = "" if down is None else f", {profile.output_bits / 8192:.1f} KiB back at {down / 1e6:g} Mbit/s"
    print(
        f"{profile.model} on {card.name} ({card.used_core.name}, {card.radio}), {rate / 1e6:g} Mbit/s up, "
        f"{delay * 1e3:g} ms round trip{back}, edge {edge:g} GMACs/s; best {objective} first"
    )
    print()
    rows = [
        [
            str(one.cut),
            shown_layer(one.layer),
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
        print(f"from {at / 1e6:.3g} Mbit/s on, cut {cut} ({profile.cut(cut).name}) is best")
    for reason, count in advice.refused.items():
        print(f"left out: {count} with {reason}")
    if compared is not None:
        _show_compared(compared, emulate_link=emulate_link)


@dataclass(frozen=True)
class _Compared:
    """A way as it was predicted, as it would be at the speeds of this machine and that server, and as it was seen."""

    cut: int
    codec: str
    predicted_s: float
    at_measured_speeds_s: float
    seen_s: float
    seen_head_s: float
    seen_wire_s: float
    seen_tail_s: float
    here_macs_per_s: float
    edge_macs_per_s: float


def _compare(
    profile: Profile,
    best: Sequence[Option],
    model: str,
    target: str,
    security: ClientSecurity,
    link: dict[str, float] | None,
    repeats: int,
) -> list[_Compared]:
    from splitinfer.graph.engines import set_threads
    from splitinfer.models import load_card
    from splitinfer.runtime import ClientSettings, EdgeClient
    from splitinfer.runtime.emulation.relay import LinkRelay
    from splitinfer.runtime.loading import capture_card
    from splitinfer.runtime.transport import checked_target
    from splitinfer.runtime.validation import measure_ways

    set_threads(1)
    card = load_card(profile.model if model.endswith(".json") else model)
    target = checked_target(target)
    with EdgeClient(target, ClientSettings(security=security)) as direct:
        direct.describe()  # before what takes long, and by its own address where there is a relay
    split = capture_card(card)
    held, known = list(split.cuts), list(profile.cuts)
    if any(one.cut > split.num_cuts for one in best):
        held, known = [*held, *split.set_cuts], [*known, *profile.set_cuts]
    if [cut.macs_before for cut in held] != [cut.macs_before for cut in known]:
        raise InputError(
            f"--validate: the profile is not of {card.name} as it is now; splitinfer profile makes it anew"
        )
    # All here and all there tell how fast either end is.
    ends = [(split.num_cuts, ""), (0, "raw")]
    with ExitStack() as stack:
        if link is not None:
            target = stack.enter_context(LinkRelay(target, **link)).address
        client = stack.enter_context(EdgeClient(target, ClientSettings(security=security)))
        ways = [*ends, *((one.cut, one.codec) for one in best)]
        here, there, *seen = measure_ways(client, split, card.example_inputs(), ways, repeats=repeats)
    total = profile.total_macs
    here_macs_per_s, edge_macs_per_s = total / here.head_s, total / there.tail_s
    found = []
    for one, was in zip(best, seen, strict=True):
        macs = profile.cut(one.cut).macs_before
        at_speeds_s = macs / here_macs_per_s + one.wire_s + (total - macs) / edge_macs_per_s
        times = was.total_s, was.head_s, was.wire_s, was.tail_s, here_macs_per_s, edge_macs_per_s
        found.append(_Compared(one.cut, one.codec, one.total_s, at_speeds_s, *times))
    return found


def _show_compared(compared: Sequence[_Compared], *, emulate_link: bool) -> None:
    from splitinfer.cli.output import print_table

    here, there = compared[0].here_macs_per_s / 1e9, compared[0].edge_macs_per_s / 1e9
    print()
    link = "over an emulated link" if emulate_link else "over the link that there is"
    print(f"measured {link}: {here:.1f} GMACs/s here, {there:.1f} GMACs/s at the edge; medians")
    rows = [
        [
            str(one.cut),
            one.codec or "-",
            f"{one.predicted_s * 1e3:.1f}",
            f"{one.at_measured_speeds_s * 1e3:.1f}",
            f"{one.seen_s * 1e3:.1f}",
            f"{one.seen_s / one.at_measured_speeds_s - 1:+.0%}",
            f"{one.seen_head_s * 1e3:.1f}",
            f"{one.seen_wire_s * 1e3:.1f}",
            f"{one.seen_tail_s * 1e3:.1f}",
        ]
        for one in compared
    ]
    columns = ["k", "codec", "predicted ms", "at these speeds", "seen", "off by", "head", "wire", "tail"]
    print_table(columns, rows, left=("codec",))


def _absent(model: str) -> str:
    raise InputError(f"there is no file {model}")
