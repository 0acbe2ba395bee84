"""The client's half of the protocol without any input or output: what to send, and what an answer means.

The synchronous and the asynchronous client share it, so that they differ only in how they wait.
"""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from dataclasses import dataclass
from typing import Any

import torch

from splitinfer.errors import InputError, ModelMismatchError, RemoteError
from splitinfer.graph import SplitModel, TensorSpec
from splitinfer.runtime.description import EdgeDescription
from splitinfer.runtime.result import InferenceResult, Timing
from splitinfer.runtime.settings import ClientSettings
from splitinfer.runtime.statuses import remote_error
from splitinfer.wire import MAX_PROTOCOL_VERSION, Reply, Request, WireLimits, decode_reply, encode_request
from splitinfer.wire import splitinfer_pb2 as pb


@dataclass(frozen=True, eq=False)
class Outgoing:
    """A request that is ready to be sent.

    Attributes:
        data: its bytes.
        request_id: repeated in the reply.
        split, cut: what it belongs to.
        head_s, encode_s: time spent on it so far, seconds.
        started: ``time.perf_counter()`` when its bytes were ready.
    """

    data: bytes
    request_id: int
    split: SplitModel
    cut: int
    head_s: float
    encode_s: float
    started: float


class Exchange:
    """Builds requests for one server and reads its replies. Safe to use from several threads."""

    def __init__(self, target: str, settings: ClientSettings) -> None:
        self.target = target
        self.limits: WireLimits = settings.limits
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._description: EdgeDescription | None = None
        # Fingerprints take milliseconds to compute and models are few; an entry goes with its model.
        self._fingerprints: weakref.WeakKeyDictionary[SplitModel, str] = weakref.WeakKeyDictionary()

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

    def forget(self) -> None:
        """Forget the description; another server may answer at the address from now on."""
        self._description = None

    def prepare(self, split: SplitModel, cut: int, tensors: tuple[torch.Tensor, ...], head_s: float) -> Outgoing:
        """Return the request for the tail of ``cut``.

        Raises:
            InputError: tensors that cannot be sent or are over a limit of either end.
            ModelMismatchError: the server holds no such model, or another one of that name.
        """
        start = time.perf_counter()
        fingerprint = self._fingerprint(split)
        self._check_model(split.name, fingerprint)
        request_id = next(self._ids)
        data = encode_request(Request(split.name, fingerprint, cut, tensors, request_id), self.limits)
        if self._description is not None and len(data) > self._description.max_message_bytes:
            raise InputError(
                f"the tensors at cut {cut} make a message of {len(data)} bytes; the edge takes at most "
                f"{self._description.max_message_bytes}"
            )
        end = time.perf_counter()
        return Outgoing(data, request_id, split, cut, head_s, end - start, end)

    def read(self, sent: Outgoing, data: bytes) -> InferenceResult:
        """Return the result that the bytes of a reply mean; a refusal becomes its ``error``.

        Raises:
            RemoteError: the reply cannot be read or answers another request.
        """
        arrived = time.perf_counter()
        try:
            reply = decode_reply(data, self.limits)
        except InputError as error:
            raise RemoteError(f"the edge's reply cannot be read: {error}", status="INTERNAL") from None
        output, refusal = None, None
        if reply.refusal is not None:
            refusal = remote_error(*reply.refusal)
        elif reply.request_id != sent.request_id:
            raise RemoteError(
                f"the edge answered request {reply.request_id} instead of {sent.request_id}", status="INTERNAL"
            )
        else:
            _check_leaves(reply, sent.split.outputs)
            output = sent.split.unflatten_output(reply.tensors)
        timing = Timing(
            head_s=sent.head_s,
            encode_s=sent.encode_s,
            wire_s=arrived - sent.started - reply.queue_s - reply.tail_s,
            queue_s=reply.queue_s,
            tail_s=reply.tail_s,
            decode_s=time.perf_counter() - arrived,
        )
        return InferenceResult(sent.cut, timing, len(sent.data), len(data), refusal, output)

    def _fingerprint(self, split: SplitModel) -> str:
        fingerprint = self._fingerprints.get(split)
        if fingerprint is None:
            fingerprint = split.fingerprint
            with self._lock:
                self._fingerprints[split] = fingerprint
        return fingerprint

    def _check_model(self, name: str, fingerprint: str) -> None:
        description = self._description
        if description is None:
            return
        held = description.models.get(name)
        if held is None:
            raise RemoteError(
                f"the edge at {self.target} has no model {name!r}; it has {', '.join(description.models)}",
                status="NOT_FOUND",
            )
        if held.fingerprint != fingerprint:
            raise ModelMismatchError(
                f"the edge at {self.target} holds another {name} (fingerprint {held.fingerprint[:12]}, here "
                f"{fingerprint[:12]}); use the same model, weights and capture options on both sides",
                status="FAILED_PRECONDITION",
            )


def run_head(split: SplitModel, cut: int, inputs: tuple[Any, ...]) -> tuple[tuple[torch.Tensor, ...], float]:
    """Return what crosses the cut and the time it took, seconds."""
    start = time.perf_counter()
    tensors = split.run_head(cut, *inputs)
    return tensors, time.perf_counter() - start


def local_result(split: SplitModel, cut: int, inputs: tuple[Any, ...]) -> InferenceResult:
    """Run the whole model here: the last cut has no tail and sends nothing."""
    leaves, head_s = run_head(split, cut, inputs)
    return InferenceResult(cut, Timing(head_s), _output=split.unflatten_output(leaves))


def raised(result: InferenceResult) -> InferenceResult:
    """Return the result, or raise its error."""
    if result.error is not None:
        raise result.error
    return result


def _check_leaves(reply: Reply, expected: tuple[TensorSpec, ...]) -> None:
    tensors = reply.tensors
    if len(tensors) == len(expected) and all(
        tensor.shape == spec.shape and tensor.dtype == spec.dtype
        for tensor, spec in zip(tensors, expected, strict=True)
    ):
        return
    received = ", ".join(str(TensorSpec.of(tensor)) for tensor in tensors)
    raise RemoteError(
        f"the edge answered with ({received}) where the model returns ({', '.join(map(str, expected))})",
        status="INTERNAL",
    )
