"""``splitinfer infer``: one real split inference of a picture."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from splitinfer.cli.options import (
    ClientCert,
    EngineName,
    MaxMessageMib,
    OnFailureName,
    OtlpEndpoint,
    TlsCa,
    TlsKey,
    TokenFile,
)
from splitinfer.errors import InputError
from splitinfer.threads import MAX_THREADS

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    from splitinfer.graph import SplitModel
    from splitinfer.models import ModelCard
    from splitinfer.models.sent_pictures import PictureCodec
    from splitinfer.models.sources import Source
    from splitinfer.runtime import EdgeClient, InferenceResult


def infer(
    model: Annotated[str, typer.Argument(help="A card's name, package.module:factory, or a card file.")],
    wanted: Annotated[
        list[str],
        typer.Option(
            "--input",
            metavar="SOURCE",
            help="A picture, folder, glob, video, camera:0, a .npz or .safetensors with the model's inputs in order, "
            "or the .npy of a model's one input. Each --input is an inference of its own.",
        ),
    ],
    cut: Annotated[
        str | None,
        typer.Option(help="Cut after this layer's name, an index 0..K, or a set cut; K runs everything here."),
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="The edge server; one is started for the time if absent.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare with the whole model run here; exit 1 if different.")
    ] = False,
    codec: Annotated[
        str,
        typer.Option(
            help="How tensors are sent: raw keeps every bit; float16, bfloat16, int8, int4, int2 round; each also with "
            "+zstd; int4+ans, int2+ans, ternary+ans (extra ans). At cut 0 also the picture itself, preprocessed at the "
            "edge: jpeg, jpeg:Q, webp, webp:Q, uint8, uint8+zstd."
        ),
    ] = "raw",
    repeat: Annotated[int, typer.Option(min=1, help="Inferences; percentiles of their times are shown.")] = 1,
    stream: Annotated[
        bool, typer.Option("--stream", help="Compute the next head while earlier requests are under way.")
    ] = False,
    engine: EngineName = "torch",
    threads: Annotated[int, typer.Option(min=1, max=MAX_THREADS, help="Threads inside one operation of the head.")] = 1,
    deadline_s: Annotated[float, typer.Option(help="Longest wait for an answer, seconds.")] = 30.0,
    wait_s: Annotated[
        float, typer.Option("--wait", min=0.0, metavar="S", help="Wait so long for a server that is still starting.")
    ] = 0.0,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep the answers: .json, .jsonl (a line each) or .npz (the tensors)."),
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Most frames of a video or camera.")] = None,
    max_pixels: Annotated[int, typer.Option(min=1, help="Largest picture that is decoded.")] = 100_000_000,
    max_message_mib: MaxMessageMib = 64,
    on_failure: OnFailureName = "fail",
    tls_ca: TlsCa = None,
    tls_cert: ClientCert = None,
    tls_key: TlsKey = None,
    token_file: TokenFile = None,
    otlp: OtlpEndpoint = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Run the head of a model on pictures here, and the tail on an edge server.

    A card file, a factory and preprocess_with are code: only run those you trust. A card may name models and code of
    your own; splitinfer --trust-code lets it name any installed code.

    Example:
      splitinfer infer resnet18 --cut layer2.0.conv1 --input photo.jpg --check
      splitinfer infer resnet18 --cut 7 --input photo.jpg --server 127.0.0.1:50051 --repeat 20
      splitinfer infer resnet18-head/ --input photo.jpg --server 127.0.0.1:50051
      splitinfer infer resnet18 --cut 7 --input photos/ --input clip.mp4 --output answers.jsonl
    """
    from splitinfer.artifacts.manifest import is_artifact
    from splitinfer.cli.infer_exported import check_exported_options, infer_exported
    from splitinfer.cli.serve import limits_of
    from splitinfer.models import load_card
    from splitinfer.models.answers import AnswerFile
    from splitinfer.models.sent_pictures import picture_codec
    from splitinfer.models.sources import find_sources
    from splitinfer.runtime.perseverance import checked_on_failure
    from splitinfer.runtime.security import ClientSecurity
    from splitinfer.runtime.settings import MAX_WAIT_S, ClientSettings
    from splitinfer.wire.codecs import codecs_named

    if not wait_s <= MAX_WAIT_S:
        raise InputError(f"--wait: must be a number of seconds up to {MAX_WAIT_S:.0f}, not {wait_s}")
    if is_artifact(model):
        if server is None:
            raise InputError("--server: an exported head needs an edge that runs its tail; give --server HOST:PORT")
        used = {"--check": check, "--stream": stream, "--cut": cut is not None}
        check_exported_options(used | {"--otlp": otlp is not None})
        security = ClientSecurity(tls_ca, tls_cert, tls_key, token_file)
        settings = ClientSettings(
            deadline_s=deadline_s, security=security, codec=codec, limits=limits_of(max_message_mib)
        )
        infer_exported(
            model,
            wanted,
            server,
            settings,
            repeat=repeat,
            threads=threads,
            max_pixels=max_pixels,
            output=output,
            as_json=as_json,
            wait_s=wait_s,
            on_failure=checked_on_failure(on_failure),
        )
        return
    if cut is None:
        raise InputError("--cut is missing: the name of a layer or an index; splitinfer profile lists them")
    card = load_card(model)  # all of this before torch is imported: what is wrong is said at once
    requests = find_sources(card, wanted, max_pixels=max_pixels, frames=frames)
    pictures = picture_codec(codec)
    if pictures is not None:
        _check_sends_pictures(codec, cut, {"--stream": stream, "--on-failure": on_failure != "fail"})
    codecs_named([codec if pictures is None else pictures.wire], installed=True)
    kept = AnswerFile.open(output) if output is not None else None
    single = requests.total == 1

    from splitinfer.cli.output import progress_bar, say
    from splitinfer.graph.engines import checked_engine, set_threads
    from splitinfer.models.options import CaptureOptions
    from splitinfer.runtime import EdgeClient, EdgeProcess, ServerSettings
    from splitinfer.runtime.tracing import tracing_to

    if server is None and (tls_ca or token_file):
        raise InputError("--tls-ca and --token-file are for a server of your own: give --server HOST:PORT too")
    how = CaptureOptions(engine=checked_engine(engine))
    limits = limits_of(max_message_mib)
    chosen = checked_on_failure(on_failure)
    security = ClientSecurity(tls_ca, tls_cert, tls_key, token_file)
    settings = ClientSettings(
        deadline_s=deadline_s,
        security=security,
        codec=codec if pictures is None else pictures.wire,
        limits=limits,
        allocator_tuning=True,
    )
    sources = iter(requests)
    first = next(sources, None)
    if first is None:
        raise InputError("--input: there is nothing to infer from")
    with ExitStack() as stack:
        tracing = stack.enter_context(tracing_to(otlp, "splitinfer-device"))
        target = server
        embedded = None
        if target is None:  # imports torch while this process does
            embedded = EdgeProcess([model], ServerSettings(limits=limits), options=how)
            stack.callback(embedded.kill)  # nobody else has anything there; an orderly end takes a second
            embedded.start()
        from splitinfer.cli.infer_report import answer_of, answered, show
        from splitinfer.runtime.loading import capture_card

        set_threads(threads)
        first_inputs = first.load()  # before anything slow: the file may be wrong
        if target is not None:
            client = stack.enter_context(EdgeClient(target, settings, on_failure=chosen, tracing=tracing))
            if wait_s:
                client.wait_ready(wait_s)
        if sys.stderr.isatty():  # elsewhere a mistake stays one line
            say(
                f"capturing {card.name}"
                + ("" if embedded is None else ", here and in an edge started for this command")
            )
        split = capture_card(card, how)
        k = split.find_cut(cut)
        if embedded is not None:
            embedded.wait_ready()
            target = embedded.address
            client = stack.enter_context(EdgeClient(target, settings, on_failure=chosen, tracing=tracing))
        client.infer(split, k, *first_inputs)  # connects and compiles both halves, which no later call does
        edge_engine = _edge_engine(client, split)
        progress = stack.enter_context(progress_bar("pictures")) if not single else _no_progress
        # What a picture codec loses is lost before the model: the answer is that to the picture as it was sent.
        lossy = codec if pictures is None else pictures.wire
        reference = _Reference(split, k, lossy, client.tolerance(split)) if check else None
        results: list[InferenceResult] = []
        answers: list[dict[str, Any]] = []
        start = time.perf_counter()
        for index, source in enumerate(chain([first], sources)):
            inputs = first_inputs if index == 0 else source.load()
            if pictures is None:
                own = list(_run(client, split, k, inputs, repeat=repeat, stream=stream))
            else:
                inputs, own = _run_picture(client, split, card, source, pictures, max_pixels, repeat)
            if reference is not None:
                reference.check(inputs, own)
            answers.append(answer_of(source.name, own[-1].output, card.class_names(), kept, whole=single or as_json))
            results += own if single else [replace(result, _output=None) for result in own]
            progress(index + 1, requests.total or 0)
        wall_s = time.perf_counter() - start
        if kept is not None:
            kept.close()
    report = {
        "model": split.name,
        "cut": k,
        "layer": split.cut(k).name,
        "num_cuts": split.num_cuts,
        "fingerprint": split.fingerprint,
        "server": target,
        "server_is_embedded": server is None,
        "weights": card.weights,
        "has_labels": card.labels is not None,
        "codec": codec,
        "engine": split.engine,
        "edge_engine": edge_engine,
        "output": None if output is None else str(output),
    }
    report |= answered(answers, results, wall_s) | {"checked": None}
    report |= reference.found() if reference is not None else {}
    show(report, as_json=as_json)


def _edge_engine(client: EdgeClient, split: SplitModel) -> str:
    """What computes tails at the edge; empty where the edge does not answer."""
    from splitinfer.errors import SplitInferError

    try:
        return client.describe().models[split.name].engine
    except SplitInferError:
        return ""


def _no_progress(done: int, total: int) -> None:
    """For one picture there is nothing to watch."""


def _run(
    client: EdgeClient, split: SplitModel, k: int, inputs: tuple[torch.Tensor, ...], *, repeat: int, stream: bool
) -> Iterable[InferenceResult]:
    if stream:
        return client.stream(split, k, (inputs for _ in range(repeat)))
    return (client.infer(split, k, *inputs) for _ in range(repeat))


def _check_sends_pictures(codec: str, cut: str, unfit: dict[str, bool]) -> None:
    if cut.strip() not in ("0", "input"):
        raise InputError(f"--codec: {codec} sends the picture itself, which is cut 0; give --cut 0")
    for option, given in unfit.items():
        if given:
            raise InputError(f"{option}: does not go with --codec {codec}, whose pictures are preprocessed at the edge")


def _run_picture(
    client: EdgeClient,
    split: SplitModel,
    card: ModelCard,
    source: Source,
    codec: PictureCodec,
    max_pixels: int,
    repeat: int,
) -> tuple[tuple[torch.Tensor, ...], list[InferenceResult]]:
    """Send a picture itself; returns what the model gets of it, and the answers."""
    from splitinfer.models.sent_pictures import decode_picture
    from splitinfer.models.sources import inputs_of

    if source.picture is None:
        raise InputError(f"--codec: {codec.name} sends pictures, and {source.name} holds tensors")
    picture = source.picture
    results = [
        client.infer_picture(split, card, picture, codec=codec.name, max_pixels=max_pixels) for _ in range(repeat)
    ]
    decoded = decode_picture(codec.encode(picture, max_pixels=max_pixels), max_pixels=max_pixels)
    return inputs_of(card, decoded, max_pixels=max_pixels), results


class _Reference:
    """Compares answers with the whole model's, or with what the tail makes of what the codec leaves.

    Bit for bit, unless an engine or the batches of the edge have a tolerance.
    """

    def __init__(self, split: SplitModel, k: int, codec: str, tolerance: float) -> None:
        from splitinfer.errors import CheckFailedError
        from splitinfer.wire.codecs import codecs_named

        if split.random_ops:
            raise CheckFailedError(
                f"{split.name} cannot be checked: it draws random numbers in every run ({'; '.join(split.random_ops)})"
            )
        self._split = split
        self._k = k
        self._tolerance = tolerance
        self._codec = codecs_named([codec])[0]
        self._checked = 0
        self._largest: float | None = None

    def check(self, inputs: tuple[torch.Tensor, ...], results: list[InferenceResult]) -> None:
        from splitinfer.runtime.verify import check_answer, largest_difference
        from splitinfer.wire.codecs import Wire
        from splitinfer.wire.torch_tensors import as_received

        split, k = self._split, self._k
        whole = expected = split(*inputs)
        if not self._codec.exact and k != split.num_cuts:
            expected = split.run_tail(k, *as_received(split.run_head(k, *inputs), Wire(codec=self._codec)))
            self._largest = max(self._largest or 0.0, largest_difference(expected, whole))
        for result in results:
            check_answer(result.output, expected, f"{split.name} cut {k}", tolerance=self._tolerance)
        self._checked += len(results)

    def found(self) -> dict[str, Any]:
        found: dict[str, Any] = {"checked": self._checked, "tolerance": self._tolerance}
        return found if self._largest is None else found | {"largest_difference": self._largest}
