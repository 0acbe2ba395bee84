"""What one split inference gives: the output and where the time went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from splitinfer.errors import SplitInferError


@dataclass(frozen=True)
class Timing:
    """Where the time of one inference went, in seconds. The parts add up to ``total_s``.

    Attributes:
        head_s: computing the head on the device.
        encode_s: from tensors to the request's bytes.
        wire_s: sending and receiving, with what gRPC and the server do around the tail.
        queue_s: waiting for a free processor of the edge, as the server measured it.
        tail_s: computing the tail, as the server measured it.
        decode_s: from the reply's bytes to the output.
        total_s: from the inputs to the output.
    """

    head_s: float
    encode_s: float = 0.0
    wire_s: float = 0.0
    queue_s: float = 0.0
    tail_s: float = 0.0
    decode_s: float = 0.0

    @property
    def total_s(self) -> float:
        return self.head_s + self.encode_s + self.wire_s + self.queue_s + self.tail_s + self.decode_s


@dataclass(frozen=True, eq=False)
class InferenceResult:
    """The answer to one inference.

    Attributes:
        cut: the cut that was used.
        timing: where the time went.
        bytes_up: size of the request, 0 where nothing was sent.
        bytes_down: size of the reply.
        error: why a stream has no output for this request; single inferences raise it instead.
        ran_at: where the tail ran: ``edge``, or ``device`` where there was none to send or the edge failed.
        retries: tries after the first.
        failure: why the edge did not run the tail, where the device had to.
    """

    cut: int
    timing: Timing
    bytes_up: int = 0
    bytes_down: int = 0
    error: SplitInferError | None = None
    _output: Any = None
    ran_at: Literal["edge", "device"] = "edge"
    retries: int = 0
    failure: SplitInferError | None = None

    @property
    def output(self) -> Any:
        """What the model returns.

        Raises:
            SplitInferError: ``error``, if there is one.
        """
        if self.error is not None:
            raise self.error
        return self._output
