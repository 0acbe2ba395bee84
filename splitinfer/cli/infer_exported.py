"""``splitinfer infer DIR``: an exported head here, without torch, and the tail on an edge server."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from splitinfer.errors import InputError
from splitinfer.runtime.settings import ClientSettings


def infer_exported(
    folder: str,
    wanted: list[str],
    server: str,
    settings: ClientSettings,
    *,
    repeat: int,
    threads: int,
    max_pixels: int,
    output: Path | None,
    as_json: bool,
) -> None:
    """Run the head of an exported model on pictures or tensors here, and the tail on a server."""
    import numpy as np

    from splitinfer.artifacts.head import ExportedHead
    from splitinfer.cli.output import print_table
    from splitinfer.models.answers import AnswerFile, describe
    from splitinfer.models.sources import input_files, read_arrays
    from splitinfer.runtime.client import EdgeClient

    head = ExportedHead(folder, threads=threads)
    manifest = head.manifest
    files = input_files(wanted)
    kept = AnswerFile.open(output) if output is not None else None
    answers: list[dict[str, Any]] = []
    times_s: dict[str, list[float]] = {"head": [], "total": []}
    bytes_up = bytes_down = 0
    with EdgeClient(server, settings) as client:
        for path in files:
            inputs = (
                read_arrays(path) if path.suffix in (".npy", ".npz") else [head.preprocess(path, max_pixels=max_pixels)]
            )
            leaves: tuple[Any, ...] = ()
            for _ in range(repeat):
                start = time.perf_counter()
                tensors = head(*inputs)
                times_s["head"].append(time.perf_counter() - start)
                if manifest.tail is None:
                    leaves = tuple(tensors)
                else:
                    result = client.run_tail(head.model, manifest.cut, tensors)
                    leaves, bytes_up, bytes_down = tuple(result.output), result.bytes_up, result.bytes_down
                times_s["total"].append(time.perf_counter() - start)
            answer = leaves[0] if len(leaves) == 1 else leaves
            top = _top(answer, manifest.labels)
            if kept is not None:
                kept.add(str(path), answer, top)
            answers.append({"input": str(path), "top": top, "answer": describe(answer)})
    if kept is not None:
        kept.close()
    report = {
        "model": manifest.model,
        "cut": manifest.cut,
        "layer": manifest.layer,
        "num_cuts": manifest.num_cuts,
        "fingerprint": manifest.fingerprint,
        "server": server,
        "engine": "onnxruntime",
        "answers": answers,
        "inputs": len(answers),
        "milliseconds": {name: {"p50": float(np.median(own)) * 1e3} for name, own in times_s.items()},
        "bytes_up": bytes_up,
        "bytes_down": bytes_down,
        "output": None if output is None else str(output),
    }
    if as_json:
        print(json.dumps(report))
        return
    print(f"{manifest.model}, cut {manifest.cut} of {manifest.num_cuts} after {manifest.layer}, edge {server}")
    print("head computed by onnxruntime from an exported file")
    print()
    for one in answers:
        if one["top"]:
            best = one["top"][0]
            print(f"{one['input']}: {best['name'] or best['class']} {best['probability']:.1%}")
        else:
            rows = [[part["name"], part["dtype"], part["shape"], part["range"]] for part in one["answer"]]
            print_table([one["input"], "dtype", "shape", "range"], rows, left=(one["input"], "dtype", "shape", "range"))
    print()
    for name, own in report["milliseconds"].items():  # type: ignore[attr-defined]
        print(f"{name:<6} {own['p50']:.2f} ms")
    print(f"sent {bytes_up / 1024:,.1f} KiB, received {bytes_down / 1024:,.1f} KiB")


def _top(answer: Any, labels: tuple[str, ...] | None) -> list[dict[str, Any]]:
    import numpy as np

    if not isinstance(answer, np.ndarray) or answer.ndim != 2 or answer.shape[0] != 1 or answer.dtype.kind != "f":
        return []
    scores = np.exp(answer[0].astype(np.float64) - answer[0].max())
    scores /= scores.sum()
    best = np.argsort(-scores, kind="stable")[:5]
    return [
        {"class": int(i), "name": labels[i] if labels and i < len(labels) else None, "probability": float(scores[i])}
        for i in best
    ]


def check_exported_options(given: dict[str, bool]) -> None:
    """Refuse options that are about a whole model.

    Raises:
        InputError: one was given.
    """
    for option, is_given in given.items():
        if is_given:
            raise InputError(f"{option}: an exported head has no whole model here; leave the option out")
