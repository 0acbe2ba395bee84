"""``splitinfer infer``: one real split inference of a picture."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    from splitinfer.graph import SplitModel
    from splitinfer.models import ModelCard
    from splitinfer.runtime import EdgeClient, InferenceResult

_TOP = 5
_PERCENTILES = (50, 90, 99)
_PARTS = ("head", "encode", "wire", "queue", "tail", "decode", "total")
_KIB = 1024


def infer(
    model: Annotated[str, typer.Argument(help="A card's name, package.module:factory, or a card file.")],
    cut: Annotated[str, typer.Option(help="Cut after this layer's name, or an index 0..K; K runs everything here.")],
    image: Annotated[Path, typer.Option("--input", metavar="IMAGE", help="The picture.")],
    server: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="The edge server; one is started for the time if absent.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare with the whole model run here, bit for bit; exit 1 if different.")
    ] = False,
    codec: Annotated[
        str, typer.Option(help="How tensors are sent: raw keeps every bit, float16 takes half the bytes of floats.")
    ] = "raw",
    repeat: Annotated[int, typer.Option(min=1, help="Inferences; percentiles of their times are shown.")] = 1,
    stream: Annotated[
        bool, typer.Option("--stream", help="Compute the next head while earlier requests are under way.")
    ] = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads inside one operation of the head.")] = 1,
    deadline_s: Annotated[float, typer.Option(help="Longest wait for an answer, seconds.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Run the head of a model on a picture here, and the tail on an edge server.

    Example:
      splitinfer infer resnet18 --cut layer2.0.conv1 --input photo.jpg --check
      splitinfer infer resnet18 --cut 7 --input photo.jpg --server 127.0.0.1:50051 --repeat 20
    """

    from splitinfer.graph.engines import set_threads
    from splitinfer.models import load_card
    from splitinfer.runtime import ClientSettings, EdgeClient, EdgeProcess
    from splitinfer.runtime.loading import capture_card

    set_threads(threads)
    settings = ClientSettings(deadline_s=deadline_s, codec=codec, allocator_tuning=True)
    card = load_card(model)
    picture = card.preprocess(image)  # before anything slow: the path may be wrong
    with ExitStack() as stack:
        target = server
        embedded = None
        if target is not None:
            client = stack.enter_context(EdgeClient(target, settings))
        else:
            embedded = EdgeProcess([model])
            stack.callback(embedded.stop)
            embedded.start()
        split = capture_card(card)
        k = split.find_cut(cut)
        if embedded is not None:
            embedded.wait_ready()
            target = embedded.address
            client = stack.enter_context(EdgeClient(target, settings))
        inputs = (picture, *card.example_inputs()[1:])
        client.infer(split, k, *inputs)  # connects and compiles both halves, which no later call does
        start = time.perf_counter()
        results = list(_run(client, split, k, inputs, repeat=repeat, stream=stream))
        wall_s = time.perf_counter() - start
        checked = _check(split, inputs, results, codec) if check else {}
    report = _report(card, split, results, target=target or "", embedded=server is None, codec=codec)
    report |= {"milliseconds_apart": wall_s / repeat * 1e3, "checked": None} | checked
    if as_json:
        print(json.dumps(report))
    else:
        _show(report)


def _run(
    client: EdgeClient, split: SplitModel, k: int, inputs: tuple[torch.Tensor, ...], *, repeat: int, stream: bool
) -> Iterable[InferenceResult]:
    if stream:
        return client.stream(split, k, (inputs for _ in range(repeat)))
    return (client.infer(split, k, *inputs) for _ in range(repeat))


def _check(
    split: SplitModel, inputs: tuple[torch.Tensor, ...], results: list[InferenceResult], codec: str
) -> dict[str, Any]:
    """Compare answers bit for bit: with the whole model's, or with what the tail makes of what the codec leaves."""
    from splitinfer.errors import CheckFailedError
    from splitinfer.runtime.verify import check_answer, largest_difference
    from splitinfer.wire.codecs import Wire, codecs_named
    from splitinfer.wire.torch_tensors import as_received

    if split.random_ops:
        raise CheckFailedError(
            f"{split.name} cannot be checked: it draws random numbers in every run ({'; '.join(split.random_ops)})"
        )
    whole = expected = split(*inputs)
    found: dict[str, Any] = {"checked": len(results)}
    k, sent = results[0].cut, codecs_named([codec])[0]
    if not sent.exact and k < split.num_cuts:
        expected = split.run_tail(k, *as_received(split.run_head(k, *inputs), Wire(codec=sent)))
        found["largest_difference"] = largest_difference(expected, whole)
    for result in results:
        check_answer(result.output, expected, f"{split.name} cut {k}", tolerance=split.tolerance)
    return found


def _report(
    card: ModelCard,
    split: SplitModel,
    results: list[InferenceResult],
    *,
    target: str,
    embedded: bool,
    codec: str,
) -> dict[str, Any]:
    import numpy as np

    first = results[0]
    times = {part: [getattr(result.timing, f"{part}_s") * 1e3 for result in results] for part in _PARTS}
    return {
        "model": split.name,
        "cut": first.cut,
        "layer": split.cuts[first.cut].name,
        "num_cuts": split.num_cuts,
        "fingerprint": split.fingerprint,
        "server": target,
        "server_is_embedded": embedded,
        "weights": card.weights,
        "top": _top_classes(card, first.output),
        "repeat": len(results),
        "milliseconds": {
            part: {f"p{p}": float(np.percentile(values, p)) for p in _PERCENTILES} for part, values in times.items()
        },
        "bytes_up": first.bytes_up,
        "bytes_down": first.bytes_down,
        "codec": codec,
    }


def _top_classes(card: ModelCard, output: Any) -> list[dict[str, Any]]:
    """Return the most probable classes if the output is one row of logits, as a classifier's is."""
    import torch

    if not isinstance(output, torch.Tensor) or output.dim() != 2 or output.shape[0] != 1:
        return []
    names = card.class_names()
    probabilities, classes = output[0].float().softmax(0).topk(min(_TOP, output.shape[1]))
    return [
        {"class": index, "name": names[index] if names and index < len(names) else None, "probability": share}
        for share, index in zip(probabilities.tolist(), classes.tolist(), strict=True)
    ]


def _show(report: dict[str, Any]) -> None:
    from splitinfer.cli.output import print_table

    where = f"{report['server']} (started for this command)" if report["server_is_embedded"] else report["server"]
    print(f"{report['model']}, cut {report['cut']} of {report['num_cuts']} after {report['layer']}, edge {where}")
    print()
    if report["top"]:
        rows = [[str(entry["class"]), entry["name"] or "", f"{entry['probability']:.1%}"] for entry in report["top"]]
        print_table(["class", "name", "probability"], rows, left=("name",))
        if report["weights"] is None:
            print("the weights are random, so these classes mean nothing; set weights in a card to change that")
        print()
    shown = _PERCENTILES if report["repeat"] > 1 else _PERCENTILES[:1]
    columns = [f"p{p} ms" for p in shown] if len(shown) > 1 else ["ms"]
    rows = [[part, *(f"{report['milliseconds'][part][f'p{p}']:.2f}" for p in shown)] for part in _PARTS]
    print_table(["part", *columns], rows, left=("part",))
    if report["repeat"] > 1:
        print(f"one answer every {report['milliseconds_apart']:.2f} ms, {report['repeat']} in all")
    up, down = report["bytes_up"], report["bytes_down"]
    print(f"sent {up / _KIB:,.1f} KiB, received {down / _KIB:,.1f} KiB" if up else "nothing sent: all of it ran here")
    if report["checked"] is not None:
        answers = "the answer equals" if report["checked"] == 1 else f"all {report['checked']} answers equal"
        if "largest_difference" not in report:
            print(f"checked: {answers} the whole model's, bit for bit")
        else:
            print(
                f"checked: {answers} the tail's on what {report['codec']} leaves, bit for bit, and differ from the "
                f"whole model's by up to {report['largest_difference']:.3g}"
            )
