"""``splitinfer demo``: the main job in one command."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from splitinfer.cli.options import EngineName
from splitinfer.threads import MAX_THREADS

if TYPE_CHECKING:
    import torch

    from splitinfer.graph import SplitModel
    from splitinfer.profiling import Profile
    from splitinfer.runtime import EdgeClient, InferenceResult

_PROFILED = ("resnet18", "mobilenet_v2")
_BITS_PER_KIB = 8 * 1024
_BYTES_PER_KIB = 1024


def demo(
    model: Annotated[str, typer.Option(help="The model that is split at every cut.")] = "resnet18",
    image: Annotated[Path | None, typer.Option("--input", metavar="IMAGE", help="Another picture.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Measured inferences at every cut.")] = 5,
    threads: Annotated[int, typer.Option(min=1, max=MAX_THREADS, help="Threads of each side.")] = 1,
    engine: EngineName = "torch",
) -> None:
    """Profile two models, then run a photo through every cut of one of them over a real edge server.

    The server is a process of its own on a free port of this machine. Every answer is compared with the whole model's,
    bit for bit.

    Example:
      splitinfer demo
    """
    from splitinfer.graph.engines import set_threads
    from splitinfer.models import CaptureOptions, load_card
    from splitinfer.models.photos import shipped_photo
    from splitinfer.profiling import profile
    from splitinfer.runtime import ClientSettings, EdgeClient, EdgeProcess, ServerSettings
    from splitinfer.runtime.loading import capture_card

    set_threads(threads)
    how = CaptureOptions(engine=engine)
    start = time.perf_counter()
    photo = image or shipped_photo()
    card = load_card(model)
    picture = card.preprocess(photo)
    edge = EdgeProcess([model], ServerSettings(torch_threads=threads), options=how)
    edge.start()
    try:
        for name in dict.fromkeys((*_PROFILED, model)):
            _show_profile(profile(name, latency=False))
        split = capture_card(card, how)
        edge.wait_ready()
        print(f"{photo.name} through every cut of {model}: heads here, tails in process {edge.pid} at {edge.address}")
        with EdgeClient(edge.address, ClientSettings(allocator_tuning=True)) as client:
            results = _run_every_cut(client, split, (picture, *card.example_inputs()[1:]), repeats)
    finally:
        edge.stop()
    _show_results(split, results, repeats)
    print(f"the whole demo took {time.perf_counter() - start:.0f} s")


def _show_profile(measured: Profile) -> None:
    from splitinfer.cli.output import print_table
    from splitinfer.cli.profile import summary

    rows = []
    fewest = float("inf")
    for cut in measured.cuts:
        if cut.crossing_bits < fewest:  # cuts that send less than every earlier one
            fewest = cut.crossing_bits
            rows.append(
                [
                    str(cut.index),
                    cut.name,
                    f"{measured.compute_ratio[cut.index]:.3f}",
                    f"{cut.crossing_bits / _BITS_PER_KIB:,.1f}",
                    f"{measured.feature_ratio[cut.index]:.3f}",
                ]
            )
    print(summary(measured))
    print("cuts that send less than every earlier one:")
    print_table(["k", "after layer", "c^k", "KiB", "d^k"], rows, left=("after layer",))
    print()


def _run_every_cut(
    client: EdgeClient, split: SplitModel, inputs: tuple[torch.Tensor, ...], repeats: int
) -> list[list[InferenceResult]]:
    """Return the results of every cut; rounds over all cuts, so that a slow spell of the machine meets all alike."""
    from splitinfer.cli.output import progress_bar
    from splitinfer.runtime.verify import check_answer

    whole = split(*inputs)
    results: list[list[InferenceResult]] = [[] for _ in split.cuts]
    with progress_bar("splitting") as progress:
        for round_number in range(repeats + 1):
            for cut in split.cuts:
                result = client.infer(split, cut.index, *inputs)
                check_answer(result.output, whole, f"{split.name} cut {cut.index}", tolerance=split.tolerance)
                if round_number > 0:  # the first round compiles the halves
                    results[cut.index].append(result)
            progress(round_number + 1, repeats + 1)
    return results


def _show_results(split: SplitModel, results: list[list[InferenceResult]], repeats: int) -> None:
    from splitinfer.cli.output import print_table

    last = split.num_cuts
    totals = [_median_ms(of_cut, "total_s") for of_cut in results]
    best = min(range(last + 1), key=totals.__getitem__)
    best_split = min(range(1, last), key=totals.__getitem__) if last > 1 else best
    rows = []
    for cut, of_cut in zip(split.cuts, results, strict=True):
        notes = [
            note
            for note, holds in (
                ("full offload", cut.index == 0),
                ("full local", cut.index == last),
                ("best", cut.index == best),
                ("best split", cut.index == best_split and best_split != best),
            )
            if holds
        ]
        rows.append(
            [
                str(cut.index),
                cut.name,
                *(f"{_median_ms(of_cut, part):.1f}" for part in ("head_s", "wire_s", "tail_s", "total_s")),
                f"{of_cut[0].bytes_up / _BYTES_PER_KIB:,.1f}",
                ", ".join(notes),
            ]
        )
    columns = ["k", "after layer", "head ms", "wire ms", "tail ms", "total ms", "KiB up", "note"]
    print_table(columns, rows, left=("after layer", "note"))
    print()
    answers = sum(map(len, results)) + len(results)
    print(f"every one of {answers} answers equals the whole model's, bit for bit; times are medians of {repeats}")
    print(
        f"full local {totals[last]:.1f} ms, full offload {totals[0]:.1f} ms, best split {totals[best_split]:.1f} ms at "
        f"k = {best_split}; both sides share this machine, so a split can only cost what the wire costs here"
    )


def _median_ms(results: list[InferenceResult], part: str) -> float:
    return 1e3 * float(median(getattr(result.timing, part) for result in results))
