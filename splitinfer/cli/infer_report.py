"""What ``splitinfer infer`` says of its answers and of the time they took, with a whole model or an exported head."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from splitinfer.cli.output import print_table

if TYPE_CHECKING:
    from splitinfer.models.answers import AnswerFile
    from splitinfer.runtime.result import InferenceResult

_PERCENTILES = (50, 90, 99)
_PARTS = ("head", "encode", "wire", "queue", "tail", "decode", "total")
_KIB = 1024
_SHOWN_INPUTS = 20


def answer_of(
    name: str, output: Any, classes: Sequence[str] | None, kept: AnswerFile | None, *, whole: bool
) -> dict[str, Any]:
    """What reports say of one answer; all of it goes into the file, where one was asked for."""
    from splitinfer.models.answers import describe, most_probable

    top = most_probable(output, classes)
    if kept is not None:
        kept.add(name, output, top)
    return {"input": name, "top": top, "answer": describe(output) if whole else []}


def answered(answers: list[dict[str, Any]], results: list[InferenceResult], wall_s: float) -> dict[str, Any]:
    """Return the part of a report that is about answers, times and bytes.

    Args:
        answers: one for each input.
        results: one for each inference, as many for every input.
        wall_s: from the first to the last, seconds.
    """
    import numpy as np

    times = {part: [getattr(result.timing, f"{part}_s") * 1e3 for result in results] for part in _PARTS}
    return {
        "top": answers[0]["top"],
        "answer": answers[0]["answer"],
        "answers": answers,
        "inputs": len(answers),
        "repeat": len(results) // len(answers),
        "milliseconds": {
            part: {f"p{p}": float(np.percentile(values, p)) for p in _PERCENTILES} for part, values in times.items()
        },
        "milliseconds_between_answers": wall_s / len(results) * 1e3,
        "bytes_up": results[0].bytes_up,
        "bytes_down": results[0].bytes_down,
        "total_bytes_up": sum(result.bytes_up for result in results),
        "total_bytes_down": sum(result.bytes_down for result in results),
        "ran_at": {place: sum(result.ran_at == place for result in results) for place in ("edge", "device")},
        "retries": sum(result.retries for result in results),
        "failure": next((str(result.failure) for result in results if result.failure is not None), None),
    }


def show(report: dict[str, Any], *, as_json: bool) -> None:
    """Print a report: one JSON object, or words and tables."""
    if as_json:
        print(json.dumps(report))
        return
    where = f"{report['server']} (started for this command)" if report["server_is_embedded"] else report["server"]
    print(f"{report['model']}, {cut_in_words(report['cut'], report['num_cuts'])} after {report['layer']}, edge {where}")
    if report["engine"] != "torch" or report["edge_engine"] not in ("", "torch"):
        there = f" and {report['edge_engine']} at the edge" if report["edge_engine"] else ""
        print(f"computed by {report['engine']} here{there}")
    print()
    _show_answers(report)
    print()
    _show_times(report)
    if report["failure"] is not None:
        print(f"the edge failed, so {report['ran_at']['device']} tails ran here: {report['failure']}")
    if report["checked"] is not None:
        _show_check(report)
    if report["output"] is not None:
        print(f"wrote {report['output']}")


def cut_in_words(cut: int, num_cuts: int) -> str:
    """Return a cut's number with the last one, K, where it is one of them."""
    return f"set cut {cut}" if cut > num_cuts else f"cut {cut} of {num_cuts}"


def _show_answers(report: dict[str, Any]) -> None:
    single = report["inputs"] == 1
    if single and report["top"]:
        rows = [[str(entry["class"]), entry["name"] or "", f"{entry['probability']:.1%}"] for entry in report["top"]]
        print_table(["class", "name", "probability"], rows, left=("name",))
    elif single:
        rows = [[one["name"], one["dtype"], one["shape"], one["range"]] for one in report["answer"]]
        print_table(["answer", "dtype", "shape", "range"], rows, left=("answer", "dtype", "shape", "range"))
        if report["has_labels"]:
            print("the card's labels are not used: the answer is no row of scores")
    else:
        rows = []
        for one in report["answers"][:_SHOWN_INPUTS]:
            best = one["top"][0] if one["top"] else None
            text = "-" if best is None else f"{best['name'] or best['class']} {best['probability']:.1%}"
            rows.append([one["input"], text])
        print_table(["input", "most probable"], rows, left=("input", "most probable"))
        if report["inputs"] > _SHOWN_INPUTS:
            print(f"and {report['inputs'] - _SHOWN_INPUTS} more; --output FILE keeps all")
    if report["weights"] is None:
        print("the weights are random, so the answer means nothing; set weights in a card to change that")


def _show_times(report: dict[str, Any]) -> None:
    count = report["repeat"] * report["inputs"]
    # A percentile needs so many times that something lies beyond it.
    shown = [p for p in _PERCENTILES if p == _PERCENTILES[0] or count * (100 - p) >= 100]
    columns = [f"p{p} ms" for p in shown] if count > 1 else ["ms"]
    rows = [[part, *(f"{report['milliseconds'][part][f'p{p}']:.2f}" for p in shown)] for part in _PARTS]
    print_table(["part", *columns], rows, left=("part",))
    if count > 1:
        print(f"one answer every {report['milliseconds_between_answers']:.2f} ms, {count} in all")
    up, down = report["bytes_up"], report["bytes_down"]
    if report["inputs"] > 1:
        up, down = report["total_bytes_up"], report["total_bytes_down"]
    print(f"sent {up / _KIB:,.1f} KiB, received {down / _KIB:,.1f} KiB" if up else "nothing sent: all of it ran here")


def _show_check(report: dict[str, Any]) -> None:
    from splitinfer.models.sent_pictures import picture_codec

    answers, differ = f"all {report['checked']} answers equal", "differ"
    if report["checked"] == 1:
        answers, differ = "the answer equals", "differs"
    how = f"to {report['tolerance']:g}" if report["tolerance"] else "bit for bit"
    if "largest_difference" not in report:
        sent = " on the picture as it was sent" if picture_codec(report["codec"]) else ""
        print(f"checked: {answers} the whole model's{sent}, {how}")
    else:
        print(
            f"checked: {answers} the tail's on what {report['codec']} leaves, {how}, and {differ} from the "
            f"whole model's by up to {report['largest_difference']:.3g}"
        )
