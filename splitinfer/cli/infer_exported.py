"""``splitinfer infer DIR``: an exported head here, without torch, and the tail on an edge server."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitinfer.errors import InputError, RemoteError
from splitinfer.runtime.result import InferenceResult, Timing
from splitinfer.runtime.settings import ClientSettings

if TYPE_CHECKING:
    from splitinfer.artifacts.head import ExportedHead
    from splitinfer.runtime.client import EdgeClient
    from splitinfer.runtime.perseverance import OnFailure


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
    wait_s: float = 0.0,
    on_failure: OnFailure = "fail",
) -> None:
    """Run the head of an exported model on pictures or tensors here, and the tail on a server.

    With ``fallback`` the folder's own tail finishes what the server does not.
    """
    from splitinfer.artifacts.head import ExportedHead
    from splitinfer.cli.infer_report import answer_of, answered, show
    from splitinfer.models.answers import AnswerFile
    from splitinfer.models.sources import input_files, read_arrays
    from splitinfer.runtime.client import EdgeClient

    head = ExportedHead(folder, threads=threads)
    manifest = head.manifest
    files = input_files(wanted)
    kept = AnswerFile.open(output) if output is not None else None
    answers: list[dict[str, Any]] = []
    results: list[InferenceResult] = []
    with EdgeClient(server, settings) as client:
        if wait_s:
            client.wait_ready(wait_s)
        start = time.perf_counter()
        for path in files:
            inputs = (
                read_arrays(path) if path.suffix in (".npy", ".npz") else [head.preprocess(path, max_pixels=max_pixels)]
            )
            own = [_run(client, head, inputs, on_failure) for _ in range(repeat)]
            results += own
            leaves = tuple(own[-1].output)
            answer = leaves[0] if len(leaves) == 1 else leaves
            answers.append(answer_of(str(path), answer, manifest.labels, kept, whole=len(files) == 1 or as_json))
        wall_s = time.perf_counter() - start
    if kept is not None:
        kept.close()
    report = {
        "model": manifest.model,
        "cut": manifest.cut,
        "layer": manifest.layer,
        "num_cuts": manifest.num_cuts,
        "fingerprint": manifest.fingerprint,
        "server": server,
        "server_is_embedded": False,
        "weights": "",
        "has_labels": manifest.labels is not None,
        "codec": settings.codec,
        "engine": "onnxruntime",
        "edge_engine": "",
        "output": None if output is None else str(output),
        "checked": None,
    }
    show(report | answered(answers, results, wall_s), as_json=as_json)


def _run(client: EdgeClient, head: ExportedHead, inputs: list[Any], on_failure: OnFailure) -> InferenceResult:
    """Run the head here and the tail at the edge; the output is the leaves of what the model returns."""
    start = time.perf_counter()
    tensors = head(*inputs)
    timing = Timing(head_s=time.perf_counter() - start)
    manifest = head.manifest
    if manifest.tail is None:
        return InferenceResult(manifest.cut, timing, _output=tuple(tensors), ran_at="device")
    try:
        result = client.run_tail(
            head.model, manifest.cut, tensors, on_failure="wait" if on_failure == "wait" else "fail"
        )
    except RemoteError as error:
        if on_failure != "fallback":
            raise
        start = time.perf_counter()
        leaves = tuple(head.run_tail(*tensors))
        timing = replace(timing, tail_s=time.perf_counter() - start)
        return InferenceResult(manifest.cut, timing, _output=leaves, ran_at="device", failure=error)
    return replace(result, timing=replace(result.timing, head_s=timing.head_s))


def check_exported_options(given: dict[str, bool]) -> None:
    """Refuse options that are about a whole model.

    Raises:
        InputError: one was given.
    """
    for option, is_given in given.items():
        if is_given:
            raise InputError(f"{option}: an exported head has no whole model here; leave the option out")
