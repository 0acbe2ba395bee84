"""``splitinfer profile``: measure a model and show its table."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitinfer.cli.options import EngineName
from splitinfer.errors import InputError
from splitinfer.threads import MAX_THREADS

if TYPE_CHECKING:
    from splitinfer.profiling import LatencyRecord, Profile
    from splitinfer.profiling.latency import LatencySettings
    from splitinfer.profiling.profile import WeightsRecord

_GIGA = 1e9
_MEGA = 1e6
_BITS_PER_KIB = 8 * 1024
_BITS_PER_MIB = 8 * 1024**2
_SHAPES_SHOWN = 3
_OPS_SHOWN = 12


def profile(
    model: Annotated[str, typer.Argument(help="A card's name, package.module:factory, or a card file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw c^k, d^k and latency over k into this PNG, PDF or SVG.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write the profile as JSON to this file or folder.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images in one request.")] = 1,
    input_size: Annotated[
        str | None, typer.Option(metavar="PIXELS", help="Height and width instead of the card's: 160 or 240x320.")
    ] = None,
    latency: Annotated[bool, typer.Option("--latency/--no-latency", help="Measure head and tail at every cut.")] = True,
    threads: Annotated[int, typer.Option(min=1, max=MAX_THREADS, help="Threads of the latency measurement.")] = 1,
    engine: EngineName = "torch",
    repeats: Annotated[int, typer.Option(min=1, help="Measured runs of every cut.")] = 10,
    codecs: Annotated[
        bool,
        typer.Option("--codecs", help="Also encode what crosses the Pareto cuts: bits, time, error, changed answers."),
    ] = False,
    images: Annotated[
        Path | None, typer.Option(help="Folder of pictures for --codecs; two photographs by default.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="A torchvision weight enum or a file, instead of the card's weights.")
    ] = None,
) -> None:
    """Measure a model: MACs, crossing tensors and latency at every cut.

    c^k is the share of the model's MACs before cut k, d^k the bits that cross cut k over the bits of the input.
    Latencies are medians of this machine. A card file is code: it names models, or functions of your own, that run;
    splitinfer --trust-code profile CARD lets it name any installed code.

    Example:
      splitinfer profile resnet18 --no-latency
      splitinfer profile resnet18 --no-latency --codecs
      splitinfer profile mobilenet_v2 --input-size 160 --plot mobilenet_v2.png
    """
    from splitinfer.cli.output import progress_bar
    from splitinfer.graph.engines import checked_engine

    size = parse_input_size(input_size)
    checked_engine(engine)
    if plot is not None:
        from splitinfer.profiling.plot import check_plot_path

        check_plot_path(plot)
    target = _save_path(save, model)
    settings = _latency_settings(threads, repeats) if latency else False
    from splitinfer.profiling import profile as measure

    with progress_bar(f"measuring {model}") as progress:
        measured = measure(
            model, latency=settings, batch=batch, input_size=size, weights=weights, engine=engine, progress=progress
        )
    if codecs:
        measured = _with_codecs(measured, model, weights, size, images)
    if target is not None:
        measured.save(target)
    if plot is not None:
        from splitinfer.profiling.plot import plot_profile

        plot_profile(measured, plot)
    if as_json:
        print(json.dumps(measured.to_dict()))
    else:
        show(measured)


def _with_codecs(
    measured: Profile, model: str, weights: str | None, size: tuple[int, int] | None, images: Path | None
) -> Profile:
    from dataclasses import replace

    from splitinfer.cli.output import progress_bar
    from splitinfer.models import CaptureOptions, load_card
    from splitinfer.profiling.codecs import described, measure_codecs, measure_picture_codecs, sample_photos
    from splitinfer.runtime.loading import capture_card
    from splitinfer.scheduling import pareto_cuts

    if size is not None:
        raise InputError("--codecs measures at the card's own input size; leave out --input-size")
    card = load_card(model)
    split = capture_card(card, CaptureOptions(weights=weights))
    cuts = [int(k) for k in pareto_cuts(measured.compute_ratio, measured.feature_ratio) if k < measured.num_cuts]
    cuts += [cut.index for cut in measured.set_cuts]
    with progress_bar("measuring codecs") as progress:
        pictures = sample_photos(images)
        records = measure_codecs(split, card, pictures, cuts=cuts, progress=progress)
        if card.preprocessing is not None and len(card.inputs) == 1:
            records = (*measure_picture_codecs(split, card, pictures), *records)
    return replace(measured, codecs=records, codecs_from=described(pictures, card, weights))


def parse_input_size(text: str | None) -> tuple[int, int] | None:
    """Read ``160`` or ``240x320`` (height x width) as pixels.

    Raises:
        InputError: the text is neither.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,9})(?:x([0-9]{1,9}))?", text.strip())
    if match is None:
        raise InputError(f"--input-size is a number of pixels or HEIGHTxWIDTH, not {text!r}")
    height = int(match[1])
    return height, int(match[2] or height)


def show(measured: Profile) -> None:
    """Print the table, the summary line, and what no MAC rule covers."""
    from splitinfer.cli.output import print_table, shown_layer

    columns = ["k", "after layer", "output", "crossing", "MACs", "c^k", "KiB", "d^k"]
    weighed = all(cut.head_weights is not None for cut in measured.cuts)
    if weighed:
        columns += ["head M", "MiB", "tail M", "MiB"]
    if measured.latency_host is not None:
        columns += ["head ms", "tail ms"]
    rows = []
    for cut in (*measured.cuts, *measured.set_cuts):
        row = [
            str(cut.index),
            shown_layer(cut.name),
            _shape(cut.output_shape),
            _crossing([tensor.shape for tensor in cut.crossing]),
            f"{cut.macs_before:,}",
            f"{measured.compute_share(cut.index):.4f}",
            f"{cut.crossing_bits / _BITS_PER_KIB:,.1f}",
            f"{cut.crossing_bits / measured.input_bits:.4f}",
        ]
        if weighed:
            row += [*_weights(cut.head_weights), *_weights(cut.tail_weights)]
        if measured.latency_host is not None:
            row += [_milliseconds(cut.head_latency), _milliseconds(cut.tail_latency)]
        rows.append(row)
    print_table(columns, rows, left=("after layer", "output", "crossing"))
    print()
    if measured.codecs:
        show_codecs(measured)
        print(f"codecs: {measured.codecs_from}" if measured.codecs_from else "")
        print()
    print(summary(measured))
    if measured.latency_host is not None:
        host = measured.latency_host
        print(
            f"latency: median ± half the interquartile range of {host['repeats']} runs, threads: {host['threads']}, "
            f"{host['processor']}, torch {host['torch']}"
        )
    if measured.uncounted_ops:
        ops = sorted(measured.uncounted_ops.items(), key=lambda item: (-item[1], item[0]))
        more = f", and {len(ops) - _OPS_SHOWN} more (see --json)" if len(ops) > _OPS_SHOWN else ""
        print(f"no MACs counted for: {', '.join(f'{name} x{n}' for name, n in ops[:_OPS_SHOWN])}{more}")


def show_codecs(measured: Profile) -> None:
    """Print what codecs make of each Pareto cut, and of pictures that are sent themselves."""
    from splitinfer.cli.output import print_table

    rows = [
        [
            str(one.cut),
            one.codec,
            f"{one.bits / _BITS_PER_KIB:,.1f}",
            f"{one.bits / measured.cut(one.cut).crossing_elements:.2f}",
            _told(one.encode_s, 1e3, ".2f"),
            _told(one.decode_s, 1e3, ".2f"),
            _told(one.error, 1, ".1e"),
            _told(one.same_top, 1, ".0%"),
        ]
        for one in measured.codecs
    ]
    columns = ["k", "codec", "KiB", "bits/element", "encode ms", "decode ms", "error", "same top class"]
    print_table(columns, rows, left=("codec",))


def _told(value: float | None, scale: float, form: str) -> str:
    return "-" if value is None else format(value * scale, form)


def summary(measured: Profile) -> str:
    """Return one line: C, D, parameters, K, and the first cut that sends fewer bits than the input has."""
    below = [cut for cut in measured.cuts[:-1] if measured.feature_ratio[cut.index] < 1]
    where = (
        f"d^k first falls below 1 at k = {below[0].index} ({below[0].name})"
        if below
        else f"d^k falls below 1 only at k = {measured.num_cuts}"
    )
    return (
        f"{measured.model}: C = {measured.total_macs / _GIGA:.3f} GMACs, D = {measured.input_bits:,} bits "
        f"({measured.input_bits / _BITS_PER_KIB:,.1f} KiB), {measured.parameters / _MEGA:.2f} M parameters, "
        f"answer {measured.output_bits / _BITS_PER_KIB:,.1f} KiB, "
        f"K = {measured.num_cuts}; {where}"
        + (f"; {len(measured.set_cuts)} set cuts that send fewer bits" if measured.set_cuts else "")
    )


def _save_path(save: Path | None, model: str) -> Path | None:
    """Find out before a long measurement whether the result can be written."""
    if save is None:
        return None
    from splitinfer.models import load_card

    path = save / f"{load_card(model).name.replace(':', '.')}.json" if save.is_dir() else save
    if not path.parent.is_dir():
        raise InputError(f"--save: there is no folder {path.parent}")
    return path


def _latency_settings(threads: int, repeats: int) -> LatencySettings:
    from splitinfer.profiling.latency import LatencySettings

    return LatencySettings(threads=threads, repeats=repeats)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _crossing(shapes: list[tuple[int, ...]]) -> str:
    """Show the crossing tensors, the first few of many."""
    if not shapes:
        return "-"
    shown = " + ".join(_shape(shape) for shape in shapes[:_SHAPES_SHOWN])
    rest = len(shapes) - _SHAPES_SHOWN
    return f"{shown} + {rest} more" if rest > 0 else shown


def _weights(held: WeightsRecord | None) -> tuple[str, str]:
    return ("-", "-") if held is None else (f"{held.elements / _MEGA:.2f}", f"{held.bits / _BITS_PER_MIB:.1f}")


def _milliseconds(latency: LatencyRecord | None) -> str:
    return "-" if latency is None else f"{latency.median_s * 1e3:.2f} ±{latency.iqr_s * 5e2:.2f}"
