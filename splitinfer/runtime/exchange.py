"""The client's half of the protocol without any input or output: what to send, and what an answer means.

The synchronous client, the asynchronous one and the devices of a live run share it, so that they differ only in how
they wait.
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from splitinfer.errors import InputError, ModelMismatchError, RemoteError
from splitinfer.runtime.description import EdgeDescription
from splitinfer.runtime.perseverance import Attempts
from splitinfer.runtime.result import InferenceResult, Timing
from splitinfer.runtime.settings import ClientSettings
from splitinfer.runtime.statuses import remote_error
from splitinfer.runtime.tracing import UNTRACED, RequestTrace
from splitinfer.runtime.transport import SENDER, Metadata
from splitinfer.wire import (
    MAX_PROTOCOL_VERSION,
    InPieces,
    LongMessage,
    Reply,
    Wire,
    Writer,
    decode_reply,
    request_writer,
)
from splitinfer.wire import splitinfer_pb2 as pb
from splitinfer.wire.codecs import RAW, Codec, about
from splitinfer.wire.dtypes import widened
from splitinfer.wire.messages import trace_field

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from PIL import Image

    from splitinfer.graph import SplitModel
    from splitinfer.models import ModelCard


@dataclass(frozen=True)
class ModelId:
    """A model that this process does not hold, for a device whose head was exported to another runtime.

    Attributes:
        name: on the server.
        fingerprint: of the model that the head was taken from; at a set cut, that of the cut.
    """

    name: str
    fingerprint: str


@dataclass(eq=False, slots=True)
class Plan:
    """What is known of the requests of one model, cut and codec.

    Attributes:
        model: that was found to be the server's.
        writer: of the requests.
        answer: bytes of the last reply with tensors, if it was small.
    """

    model: weakref.ref[SplitModel | ModelId]
    writer: Writer
    answer: bytes = b""


@dataclass(eq=False, slots=True)
class Outgoing:
    """A request that is ready to be sent.

    Attributes:
        data: its bytes, or those of a long one in pieces.
        request_id: repeated in the reply.
        model, cut: what it belongs to.
        head_s, encode_s: time spent on it so far, seconds.
        started: ``time.perf_counter()`` when its bytes were ready.
        tensors: what crosses the cut, should the tail have to run here.
        plan: of requests like it.
        trace: of it.
    """

    data: bytes | LongMessage
    request_id: int
    model: SplitModel | ModelId
    cut: int
    head_s: float
    encode_s: float
    started: float
    tensors: Sequence[Any]
    plan: Plan
    trace: RequestTrace = UNTRACED


_KEPT_MODELS = 1024
_LARGEST_KEPT_ANSWER_BYTES = 1 << 14


class Exchange:
    """Builds requests for one server and reads its replies. Safe to use from several threads."""

    def __init__(self, target: str, settings: ClientSettings) -> None:
        self.target = target
        self._settings = settings
        self._wire = Wire(settings.limits)
        self.agree(settings.limits.max_message_bytes, (RAW,))
        self._ids = itertools.count(1)
        self._sender = secrets.token_hex(16)
        self._lock = threading.Lock()
        self._description: EdgeDescription | None = None
        # Fingerprints take milliseconds to compute and models are few; an entry goes with its model.
        self._fingerprints: weakref.WeakKeyDictionary[SplitModel, str] = weakref.WeakKeyDictionary()

    def metadata(self) -> Metadata:
        """Return what every call carries: the name under which ids are counted, and the token, if there is one.

        Raises:
            InputError: it would cross a network in plain text, or cannot be read.
        """
        return (*self._settings.security.metadata(self.target), (SENDER, self._sender))

    @staticmethod
    def describe_request() -> bytes:
        return pb.DescribeRequest(protocol_version=MAX_PROTOCOL_VERSION).SerializeToString()

    @property
    def is_introduced(self) -> bool:
        """Whether the server's description is known."""
        return self._description is not None

    def introduce(self, description: EdgeDescription) -> None:
        """Take note of what the server holds and accepts.

        Raises:
            RemoteError: it speaks no protocol version that this end speaks.
        """
        low, high = description.protocol_versions
        if not low <= MAX_PROTOCOL_VERSION <= high:
            raise RemoteError(
                f"the edge at {self.target} speaks protocol versions {low} to {high}, this end {MAX_PROTOCOL_VERSION}",
                status="UNIMPLEMENTED",
            )
        self._description = description
        self.agree(description.max_message_bytes, description.codecs, takes_pieces=description.takes_pieces)

    def tolerance(self, model: str) -> float:
        """Return the largest relative difference of the server's answers to the captured graph's; 0 for equal bits."""
        held = None if self._description is None else self._description.models.get(model)
        return 0.0 if held is None else held.tolerance

    def check_pictures(self, model: str, digest: str) -> None:
        """Refuse to send pictures to a server that is known to preprocess them in another way.

        Raises:
            ModelMismatchError: it does.
        """
        held = None if self._description is None else self._description.models.get(model)
        if held is not None and held.preprocessing not in ("", digest):
            raise ModelMismatchError(
                f"the edge at {self.target} preprocesses pictures for {model} in another way ({held.preprocessing}, "
                f"here {digest}); use the same card on both sides, or send the tensor",
                status="FAILED_PRECONDITION",
            )

    def agree(self, max_message_bytes: int, codecs: tuple[Codec, ...], *, takes_pieces: bool = False) -> None:
        """Take note of the largest message and the codecs that the server accepts, and whether it takes pieces."""
        self._max_message_bytes = max_message_bytes
        settings = self._settings
        self._in_pieces = InPieces(settings.pieces_from_bytes, settings.piece_bytes) if takes_pieces else None
        # By the codec's name; of several versions the first counts.
        self._wires = {codec.name: Wire(self._settings.limits, codec) for codec in reversed(codecs)}
        # Per model, cut and codec, as long as the server accepts the same.
        self._writers: dict[tuple[str, str, int, str | None], Writer] = {}
        self._plans: dict[tuple[int, int, str | None], Plan] = {}

    def forget(self) -> None:
        """Forget the description; another server may answer at the address from now on."""
        self._description = None
        self._plans.clear()

    def request(
        self,
        name: str,
        fingerprint: str,
        cut: int,
        tensors: Sequence[Any],
        request_id: int,
        codec: str | None = None,
        trace_context: bytes = b"",
    ) -> bytes:
        """Return the bytes of a request for the tail of ``cut``, with ``codec`` instead of the settings'.

        Raises:
            InputError: tensors that cannot be sent or are over a limit of either end, or a codec that the server does
                not accept.
        """
        data = self._writer(name, fingerprint, cut, codec).write(tensors, request_id, trace_field(trace_context))
        if len(data) > self._max_message_bytes:
            raise self._too_large(data, cut)
        return data

    def _writer(self, name: str, fingerprint: str, cut: int, codec: str | None) -> Writer:
        writer = self._writers.get((name, fingerprint, cut, codec))
        if writer is None:
            wire = self._sending(codec or self._settings.codec)
            wanted = self._sending(self._settings.reply_codec).codec
            writer = request_writer(name, fingerprint, cut, wire, reply_codec=wanted)
            self._writers[name, fingerprint, cut, codec] = writer
        return writer

    def _too_large(self, data: bytes | LongMessage, cut: int) -> InputError:
        return InputError(
            f"the tensors at cut {cut} make a message of {len(data)} bytes; the edge takes at most "
            f"{self._max_message_bytes}"
        )

    def reply(self, data: bytes) -> Reply:
        """Return the reply that bytes mean.

        Raises:
            RemoteError: they mean none.
        """
        try:
            return decode_reply(data, self._wire)
        except InputError as error:
            raise RemoteError(f"the edge's reply cannot be read: {error}", status="INTERNAL") from None

    def known(self, model: SplitModel | ModelId, cut: int, codec: str | None) -> Plan | None:
        """Return the plan of requests that the server is known to take; None before the first."""
        plan = self._plans.get((id(model), cut, codec))
        return plan if plan is not None and plan.model() is model else None

    def prepare(
        self,
        model: SplitModel | ModelId,
        cut: int,
        tensors: Sequence[Any],
        head_s: float,
        codec: str | None = None,
        trace: RequestTrace = UNTRACED,
        plan: Plan | None = None,
        *,
        in_pieces: bool = False,
    ) -> Outgoing:
        """Return the request for the tail of ``cut``, with its times; ``plan``, if it is known, saves looking it up.

        If it may go ``in_pieces``, a long one stays buffers, on the tensors' own memory.

        Raises:
            InputError: as :meth:`request`.
            ModelMismatchError: the server holds no such model, or another one of that name.
        """
        start = time.perf_counter()
        plan = plan or self.known(model, cut, codec) or self._plan(model, cut, codec)
        request_id = next(self._ids)
        trace_bytes = trace_field(trace.context) if trace.context else b""
        data = plan.writer.write(tensors, request_id, trace_bytes, self._in_pieces if in_pieces else None)
        if len(data) > self._max_message_bytes:
            raise self._too_large(data, cut)
        end = time.perf_counter()
        return Outgoing(data, request_id, model, cut, head_s, end - start, end, tensors, plan, trace)

    def _plan(self, model: SplitModel | ModelId, cut: int, codec: str | None) -> Plan:
        fingerprint = self._fingerprint(model, cut)
        self._check_model(model.name, fingerprint, cut)
        plan = Plan(weakref.ref(model), self._writer(model.name, fingerprint, cut, codec))
        if len(self._plans) >= _KEPT_MODELS:
            self._plans.clear()
        self._plans[id(model), cut, codec] = plan
        return plan

    def read(self, sent: Outgoing, data: bytes, *, rehearses: bool = False) -> InferenceResult:
        """Return the result that the bytes of a reply mean; a refusal becomes its ``error``.

        Args:
            sent: the request.
            data: the bytes; if ``rehearses``, of the answer to another request like it.
            rehearses: see :meth:`rehearse`.

        Raises:
            RemoteError: the reply cannot be read or answers another request.
        """
        arrived = time.perf_counter()
        reply = self.reply(data)
        output = refusal = None
        if reply.refusal is not None:
            refusal = remote_error(*reply.refusal)
            refusal.retry_after_s = reply.retry_after_s or None
        elif reply.request_id != sent.request_id and not rehearses:
            raise RemoteError(
                f"the edge answered request {reply.request_id} instead of {sent.request_id}", status="INTERNAL"
            )
        else:
            output = _output(sent.model, reply)
            if len(data) <= _LARGEST_KEPT_ANSWER_BYTES:
                sent.plan.answer = data
        timing = Timing(
            head_s=sent.head_s,
            encode_s=sent.encode_s,
            wire_s=arrived - sent.started - reply.queue_s - reply.tail_s,
            queue_s=reply.queue_s,
            tail_s=reply.tail_s,
            decode_s=time.perf_counter() - arrived,
        )
        return InferenceResult(sent.cut, timing, len(sent.data), len(data), refusal, output)

    def rehearse(self, sent: Outgoing) -> None:
        """Read the last small answer to such a request once more, to be called while the next is awaited.

        What computing a head drives from a processor's caches is slow to read for the first time again, and now nobody
        waits for it.
        """
        answer = sent.plan.answer
        if answer:
            self.read(sent, answer, rehearses=True)

    def _sending(self, codec: str) -> Wire:
        try:
            return self._wires[codec]
        except KeyError:
            known = ", ".join(reversed(self._wires))
            raise InputError(
                f"codec: the edge at {self.target} does not accept {codec!r}{about(codec)}; it accepts {known}"
            ) from None

    def _fingerprint(self, model: SplitModel | ModelId, cut: int) -> str:
        if isinstance(model, ModelId):
            return model.fingerprint
        if cut > model.num_cuts:
            return model.fingerprint_at(cut)
        fingerprint = self._fingerprints.get(model)
        if fingerprint is None:
            fingerprint = model.fingerprint
            with self._lock:
                self._fingerprints[model] = fingerprint
        return fingerprint

    def _check_model(self, name: str, fingerprint: str, cut: int) -> None:
        description = self._description
        if description is None:
            return
        held = description.models.get(name)
        if held is None:
            raise RemoteError(
                f"the edge at {self.target} has no model {name!r}; it has {', '.join(description.models)}",
                status="NOT_FOUND",
            )
        # What a set cut is known by the server alone can tell.
        if held.fingerprint != fingerprint and cut <= held.num_cuts:
            raise ModelMismatchError(
                f"the edge at {self.target} holds another {name} (fingerprint {held.fingerprint[:12]}, here "
                f"{fingerprint[:12]}); use the same model, weights and capture options on both sides",
                status="FAILED_PRECONDITION",
            )


def cut_with_tail(model: SplitModel | ModelId, cut: int | str) -> int:
    """Return k of a cut whose tail an edge can run.

    Raises:
        InputError: no such cut, or the last one. Of a model that is only named, the server finds this out.
    """
    if isinstance(model, ModelId):
        if not isinstance(cut, int) or cut < 0:
            raise InputError(f"a cut of {model.name}, which is not here, is an index from 0, not {cut!r}")
        return cut
    k = model.find_cut(cut)
    if k == model.num_cuts:
        raise InputError(f"cut {k} is the last of {model.name}: there is no tail to run")
    return k


def run_head(split: SplitModel, cut: int, inputs: tuple[Any, ...]) -> tuple[tuple[torch.Tensor, ...], float]:
    """Return what crosses the cut and the time it took, seconds."""
    start = time.perf_counter()
    tensors = split.run_head(cut, *inputs)
    return tensors, time.perf_counter() - start


def local_result(split: SplitModel, cut: int, inputs: tuple[Any, ...]) -> InferenceResult:
    """Run the whole model here: the last cut has no tail and sends nothing."""
    leaves, head_s = run_head(split, cut, inputs)
    return InferenceResult(cut, Timing(head_s), _output=split.unflatten_output(leaves), ran_at="device")


def finished_here(
    model: SplitModel | ModelId, cut: int, tensors: Sequence[Any], head_s: float, since_s: float, attempts: Attempts
) -> InferenceResult:
    """Run the tail of a task here that the edge did not run.

    Args:
        model, cut, tensors: of the task.
        head_s: that its head took, seconds.
        since_s: ``time.perf_counter()`` when the head was done.
        attempts: what was tried.

    Raises:
        RemoteError: the model is not here.
    """
    if isinstance(model, ModelId):
        assert attempts.failure is not None
        raise attempts.failure
    start = time.perf_counter()
    output = model.run_tail(cut, *tensors)
    timing = Timing(head_s, wire_s=start - since_s, tail_s=time.perf_counter() - start)
    return InferenceResult(
        cut, timing, _output=output, ran_at="device", retries=attempts.retries, failure=attempts.failure
    )


@dataclass(frozen=True)
class PictureToSend:
    """A picture that is ready to be sent.

    Attributes:
        tensors: what crosses cut 0.
        wire: codec of its bytes.
        digest: of the preprocessing that is wanted.
        encode_s: time that it took, seconds.
    """

    tensors: tuple[Any]
    wire: str
    digest: str
    encode_s: float


def picture_to_send(card: ModelCard, picture: Path | Image.Image, codec: str, max_pixels: int) -> PictureToSend:
    """Encode a picture.

    Raises:
        InputError: no such codec, no picture, or too large a one.
    """
    from splitinfer.models.sent_pictures import preprocessing_digest, wanted_picture_codec

    start = time.perf_counter()
    wanted = wanted_picture_codec(codec)
    sent = wanted.encode(picture, max_pixels=max_pixels)
    encode_s = time.perf_counter() - start
    return PictureToSend((sent,), wanted.wire, preprocessing_digest(card), encode_s)


def with_encoding(result: InferenceResult, encode_s: float) -> InferenceResult:
    """Return the result with time spent on encoding before its request was made, seconds."""
    return replace(result, timing=replace(result.timing, encode_s=result.timing.encode_s + encode_s))


def raised(result: InferenceResult) -> InferenceResult:
    """Return the result, or raise its error."""
    if result.error is not None:
        raise result.error
    return result


@cache
def _to_torch() -> Callable[[Any], torch.Tensor]:
    from splitinfer.wire.torch_tensors import to_torch

    return to_torch


def _output(model: SplitModel | ModelId, reply: Reply) -> Any:
    """Return what the model returns; of a model that is not here, its tensor leaves as arrays."""
    if isinstance(model, ModelId):
        return tuple(map(widened, reply.tensors))
    leaves = tuple(map(_to_torch(), reply.tensors))
    specs = model.outputs
    fits = len(leaves) == len(specs)
    for spec, leaf in zip(specs, leaves, strict=False):
        fits = fits and spec.fits(leaf)
    if not fits:
        received = ", ".join(str(type(model.outputs[0]).of(leaf)) for leaf in leaves)
        raise RemoteError(
            f"the edge answered with ({received}) where the model returns ({', '.join(map(str, model.outputs))})",
            status="INTERNAL",
        )
    return model.unflatten_output(leaves)
