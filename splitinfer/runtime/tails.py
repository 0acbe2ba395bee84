"""Answers requests: bytes of a request to tensors of the reply. Knows models and messages, and nothing of gRPC."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from splitinfer.errors import InputError, ModelMismatchError, RemoteError
from splitinfer.runtime.batch_sizes import BATCH_TOLERANCE, BatchSizes
from splitinfer.runtime.events import BatchReleased, Observer, Refused, Repeated, TailServed, nobody
from splitinfer.runtime.once import Once
from splitinfer.runtime.statuses import refusal
from splitinfer.runtime.turns import Turns
from splitinfer.wire import (
    MAX_PROTOCOL_VERSION,
    MIN_PROTOCOL_VERSION,
    OpenedRequest,
    Reply,
    RequestHead,
    Wire,
    Writer,
    encode_reply,
    open_request,
    reply_writer,
)

if TYPE_CHECKING:
    from splitinfer.graph import SplitModel
    from splitinfer.runtime.tracing import Tracing


@dataclass(frozen=True)
class HeldModel:
    """A model that the server holds, with its fingerprint, which costs too much to compute per request.

    ``tolerance`` is the largest difference of an answer to the captured graph's, relative to the largest magnitude of
    each output tensor; 0 promises the same bits. ``preprocessing`` is the digest of what is made of pictures, empty
    where none are taken or their preparation has no ``digest``.
    """

    split: SplitModel
    fingerprint: str
    tolerance: float
    preprocessing: str = ""


_KEPT_TAILS = 1024
_SHOWN_NAME = 100


@dataclass(eq=False, slots=True)
class _Tail:
    """What requests of one head are for.

    Attributes:
        split, key: the model, and its name and cut.
        writer: of the replies.
        fits: whether the tensors that the head describes are known to be the cut's.
    """

    split: SplitModel
    key: tuple[str, int]
    writer: Writer
    fits: bool = False
    is_picture: bool = False


class TailRunner:
    """Runs tails of the models it holds, a limited number at a time.

    Args:
        models: whose tails.
        wire: this end of it.
        tails_at_once: runs at the same time.
        torch_threads: threads inside one operation.
        batch: most requests that are computed together; 1 computes each alone, with the same bits whatever else comes.
        max_wait_s: longest time that a request may have to wait for a processor, seconds.
        kept_bytes, keep_s: answers kept for senders that ask again, and for how long, seconds.
        observer: told of answers, refusals and batches.
        pictures: by model, what makes its inputs from a picture that was sent itself at cut 0 (uint8).
        tracing: writes a span of each request that carries its sender's.

    Attributes:
        models: by name.
    """

    def __init__(
        self,
        models: Iterable[SplitModel],
        wire: Wire,
        *,
        tails_at_once: int,
        torch_threads: int,
        batch: int = 1,
        max_wait_s: float = float("inf"),
        kept_bytes: int = 0,
        keep_s: float = 60.0,
        observer: Observer = nobody,
        pictures: Mapping[str, Callable[[Any], tuple[Any, ...]]] | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        from splitinfer.wire.torch_tensors import to_torch

        self._to_torch = to_torch
        self.models: dict[str, HeldModel] = {}
        for split in models:
            if split.name in self.models:
                raise InputError(f"two models have the name {split.name!r}")
            self.models[split.name] = HeldModel(
                split,
                split.fingerprint,
                max(split.tolerance, BATCH_TOLERANCE if batch > 1 else 0.0),
                str(getattr((pictures or {}).get(split.name), "digest", "")),
            )
        if not self.models:
            raise InputError("an edge server needs at least one model")
        self._wire = wire
        self._tell = observer
        self._pictures = pictures or {}
        # A decoded picture is many times its bytes, so only as many are made into inputs at once as tails run.
        self._decoding = Turns(tails_at_once, lambda model, sent: [self._pictures[model](*sent)], max_wait_s=max_wait_s)
        self._tracing = tracing
        self._once = Once(kept_bytes, keep_s)
        self._torch_threads = torch_threads
        self._of_thread = threading.local()
        # By the head of requests that were not refused; and, of these fewer, by model, cut and codec of the reply.
        self._tails: dict[RequestHead, _Tail] = {}
        self._writers: dict[tuple[str, int, tuple[int, int] | None], Writer] = {}
        self._sizes: BatchSizes | None = None
        if batch == 1:
            self._turns = Turns(tails_at_once, self._run, max_wait_s=max_wait_s)
        else:
            splits = {name: held.split for name, held in self.models.items()}
            self._sizes = BatchSizes(splits, batch, torch_threads)
            self._turns = Turns(
                tails_at_once,
                self._run,
                max_wait_s=max_wait_s,
                sizes=self._sizes,
                batch_failed=self._sizes.failed,
                released=None if observer is nobody else self._tell_batch,
            )

    def answer(
        self,
        data: bytes | memoryview,
        *,
        is_wanted: Callable[[], bool] = lambda: True,
        sender: tuple[str, str] | None = None,
    ) -> bytes:
        """Run the tail that a request asks for, and return the bytes of an ``InferReply``.

        Args:
            data: bytes of an ``InferRequest``.
            is_wanted: asked once the request's turn has come; False drops it uncomputed.
            sender: whose ids the request's id counts in: a repeated one gets the first one's answer. None for a sender
                that repeats none.

        Raises:
            RefusedRequestError: why the request is refused, with its id.
        """
        start = time.perf_counter()
        request_id, context, model = 0, b"", ""
        try:
            request = open_request(data, self._wire)
            context = request.trace_context
            request_id = request.request_id
            model = request.head.model
            if sender is None:
                return self._compute(request, len(data), start, sender, is_wanted)
            answer, is_first = self._once.answer(
                (sender, request_id),
                (len(data), request.head.model, request.head.fingerprint, request.head.cut),
                is_wanted,
                self._compute,
                request,
                len(data),
                start,
                sender,
            )
        except Exception as error:
            refused = self.refused(request_id, error, sender, model)
            if self._tracing is not None and context:
                said = {"splitinfer.request_id": request_id}
                self._tracing.served(context, said, server_s=0.0, since_s=start, refused=refused.message)
            raise refused from error
        if not is_first:
            self._tell(Repeated(request.head.model, request.head.cut, request_id, _who(sender)))
        return answer

    def _compute(
        self,
        request: OpenedRequest,
        request_bytes: int,
        start: float,
        sender: tuple[str, str] | None,
        is_wanted: Callable[[], bool],
    ) -> bytes:
        tail = self._tails.get(request.head) or self._find(request.head)
        tensors = tuple(map(self._to_torch, request.arrays()))
        waited_s = 0.0
        if tail.is_picture:
            decoded = self._decoding.take(tail.key[0], tensors[0].numpy(), is_wanted)
            tensors, waited_s = decoded.result, decoded.queue_s
        if tail.is_picture or not tail.fits:
            tail.split.check_tail(tail.key[1], tensors)
            tail.fits = True
        turn = self._turns.take(tail.key, tensors, is_wanted)
        server_s = time.perf_counter() - start
        queue_s = waited_s + turn.queue_s
        reply = Reply(request.request_id, turn.result, queue_s=queue_s, tail_s=turn.run_s, server_s=server_s)
        answer = encode_reply(reply, self._wire, tail.writer)
        if self._tell is not nobody:
            done = *tail.key, request_bytes, len(answer), queue_s, turn.run_s, server_s
            self._tell(TailServed(*done, request.request_id, _who(sender), turn.batch))
        if self._tracing is not None and request.trace_context:
            model, cut = tail.key
            self._tracing.served(
                request.trace_context,
                {"splitinfer.model": model, "splitinfer.cut": cut, "splitinfer.request_id": request.request_id},
                server_s=server_s,
                queue_s=queue_s,
                tail_s=turn.run_s,
                since_s=start,
            )
        return answer

    def refused(
        self, request_id: int, error: Exception, sender: tuple[str, str] | None, model: str = ""
    ) -> RefusedRequestError:
        """Return the refusal that an error means, and tell the observer of it."""
        refused = RefusedRequestError(request_id, error)
        known = model if model in self.models else ""
        self._tell(Refused(refused.code.name, refused.message, request_id, _who(sender), known))
        return refused

    def refuse(self, request_id: int, code: int, message: str, retry_after_s: float = 0.0) -> bytes:
        """Return the bytes of an ``InferReply`` that says why there is no answer, and when to ask again."""
        return encode_reply(Reply(request_id, refusal=(code, message), retry_after_s=retry_after_s), self._wire)

    def _find(self, header: RequestHead) -> _Tail:
        """Return the tail that a request is for, and keep it for the others that say the same."""
        version = header.protocol_version
        if not MIN_PROTOCOL_VERSION <= version <= MAX_PROTOCOL_VERSION:
            raise unknown_version(version)
        held = self.models.get(header.model)
        if held is None:
            raise unknown_model(header.model, self.models)
        is_set = held.split.is_set_cut(header.cut)
        mark = held.split.fingerprint_at(header.cut) if is_set else held.fingerprint
        if header.fingerprint != mark:
            raise ModelMismatchError(
                f"the edge holds another {header.model} (fingerprint {mark[:12]}, the device has "
                f"{header.fingerprint[:12] or 'none'}); use the same model, weights and capture options on both sides",
                status="FAILED_PRECONDITION",
            )
        if header.cut >= held.split.num_cuts and not is_set:
            raise InputError(
                f"cut {header.cut} has no tail: {header.model} has tails for cuts 0..{held.split.num_cuts - 1}"
            )
        kind = header.model, header.cut, header.reply_codec
        writer = self._writers.get(kind)
        if writer is None:
            wire = self._wire
            if header.reply_codec is not None:
                wire = replace(wire, codec=wire.find(*header.reply_codec))
            writer = self._writers[kind] = reply_writer(wire)
        if len(self._tails) >= _KEPT_TAILS:
            self._tails.clear()
        tail = _Tail(held.split, (header.model, header.cut), writer, is_picture=self._is_picture(held.split, header))
        self._tails[header] = tail
        return tail

    def _is_picture(self, split: SplitModel, header: RequestHead) -> bool:
        """Whether a request for cut 0 holds a picture to be preprocessed here.

        Raises:
            InputError: it does, and nobody here knows how.
        """
        if header.cut or isinstance(header.tensors, InputError) or len(header.tensors) != 1:
            return False
        sent, wanted = header.tensors[0].spec, split.cuts[0].crossing
        is_wanted = len(wanted) == 1 and (len(wanted[0].shape), wanted[0].dtype.itemsize) == (len(sent.shape), 1)
        if sent.dtype != np.uint8 or len(sent.shape) not in (1, 3) or is_wanted:
            return False
        if header.model not in self._pictures:
            raise InputError(f"{header.model} takes no pictures at this edge: it has no preprocessing for them")
        return True

    @property
    def tolerance(self) -> float:
        """The largest of all models."""
        return max(held.tolerance for held in self.models.values())

    def warm_batches(self) -> None:
        """Find out now which tails run in batches of which sizes, rather than at first use."""
        if self._sizes is not None:
            self._sizes.warm()

    @property
    def waiting(self) -> int:
        """Requests that wait for a processor."""
        return self._decoding.waiting + self._turns.waiting

    @property
    def backlog_s(self) -> float:
        """The time that these will take, seconds."""
        return self._decoding.backlog_s + self._turns.backlog_s

    def stuck_s(self) -> float:
        """Return how long a tail has been computing, or requests have waited without one ending, seconds."""
        return max(self._decoding.stuck_s(), self._turns.stuck_s())

    def close(self) -> None:
        if self._sizes is not None:
            self._sizes.close()

    def _run(self, tail: tuple[str, int], requests: list[Any]) -> list[Any]:
        if not hasattr(self._of_thread, "ready"):
            from splitinfer.graph.engines import set_threads

            # The number is global, but some libraries under torch keep one per thread.
            set_threads(self._torch_threads)
            self._of_thread.ready = True
        model, cut = tail
        return self.models[model].split.run_tails(cut, requests)

    def _tell_batch(self, tail: tuple[str, int], size: int, oldest_wait_s: float, reason: str, dropped: int) -> None:
        self._tell(BatchReleased(*tail, size, oldest_wait_s, reason, dropped))


def _who(sender: tuple[str, str] | None) -> str:
    """Return the name of a peer, if it has one, and the start of its client's, for logs."""
    return "" if sender is None else f"{sender[0]}/{sender[1][:8]}".lstrip("/")


class RefusedRequestError(Exception):
    """A request was refused or failed. It never leaves the server.

    Attributes:
        request_id: of the request, 0 if it could not be read.
        reason: why.
        code, message: what the client is told.
    """

    def __init__(self, request_id: int, reason: Exception) -> None:
        super().__init__(request_id)
        self.request_id = request_id
        self.reason = reason
        self.code, self.message = refusal(reason)


def unknown_version(version: int) -> RemoteError:
    """Return the refusal of a protocol version."""
    spoken = " to ".join(str(v) for v in sorted({MIN_PROTOCOL_VERSION, MAX_PROTOCOL_VERSION}))
    return RemoteError(f"this server speaks protocol version {spoken}, not {version}", status="UNIMPLEMENTED")


def unknown_model(name: str, held: Iterable[str]) -> RemoteError:
    """Return the refusal of a model's name."""
    shown = name if len(name) <= _SHOWN_NAME else f"{name[:_SHOWN_NAME]}..."
    return RemoteError(f"this server has no model {shown!r}; it has {', '.join(held)}", status="NOT_FOUND")
