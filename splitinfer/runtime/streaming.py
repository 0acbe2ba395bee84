"""``Streaming``: many inferences one after the other, the next heads while earlier requests are under way."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import grpc

from splitinfer.errors import DeadlineError, EdgeUnavailableError, RemoteError
from splitinfer.runtime.connection import Connection
from splitinfer.runtime.exchange import Outgoing, finished_here, run_head
from splitinfer.runtime.lane import Lane
from splitinfer.runtime.perseverance import Attempts, OnFailure
from splitinfer.runtime.result import InferenceResult
from splitinfer.runtime.tasks import Tasks
from splitinfer.runtime.tracing import UNTRACED
from splitinfer.runtime.transport import WINDOW, Metadata

if TYPE_CHECKING:
    from splitinfer.graph import SplitModel


class Streaming:
    """The requests of one cut on a stream of their own; one by one where the edge does not answer.

    Args:
        tasks: has those run that the stream does not.
        connection: that streams are opened on.
        window: requests under way at once.
        codec: that tensors are sent in, instead of the settings'.
        on_failure: instead of the client's.
    """

    def __init__(
        self, tasks: Tasks, connection: Connection, window: int, codec: str | None, on_failure: OnFailure | None
    ) -> None:
        self._tasks = tasks
        self._connection = connection
        self._window = window
        self._codec = codec
        self._on_failure = on_failure

    def results(
        self,
        split: SplitModel,
        cut: int,
        requests: Iterator[tuple[Any, ...]],
    ) -> Generator[InferenceResult, None, None]:
        """Give the results in the order of the requests.

        Raises:
            SplitInferError: as ``EdgeClient.stream``.
        """
        under_way: deque[Outgoing] = deque()
        line: _Line | None = None
        trace = UNTRACED
        wrong: Exception | None = None
        try:
            while True:
                try:
                    tensors, head_s = run_head(split, cut, next(requests))
                except StopIteration:
                    break
                except Exception as error:  # noqa: BLE001 - the inputs' own; what was sent before is answered first
                    wrong = error
                    break
                while line is not None and under_way and (len(under_way) >= self._window or line.has_reply):
                    line = yield from self._next(line, under_way)
                if line is None and not self._tasks.breaker.is_open:
                    line = self._open_line()
                if line is None:  # one by one, until the edge answers again
                    yield self._tasks.answer(split, cut, tensors, head_s, self._codec, self._on_failure)
                    continue
                try:
                    trace = self._tasks.begin(split.name, cut, head_s)
                    outgoing = self._tasks.exchange.prepare(split, cut, tensors, head_s, self._codec, trace)
                except RemoteError as error:
                    trace.failed(error)
                    yield self._tasks.finish(split, cut, tensors, head_s, self._codec, self._on_failure)
                    continue
                line.lane.begin(bytes(outgoing.data))
                under_way.append(outgoing)
            while line is not None and under_way:
                line = yield from self._next(line, under_way)
            if wrong is not None:
                raise wrong
        except BaseException as error:
            for open_trace in (trace, *(sent.trace for sent in under_way)):
                open_trace.failed(error)
            raise
        finally:
            if line is not None:
                line.close()

    def _open_line(self) -> _Line | None:
        """Open a stream; None where the edge does not say what it holds."""
        try:
            if not self._tasks.exchange.is_introduced:
                self._tasks.describe(self._tasks.settings.try_s or self._tasks.settings.deadline_s)
            exchange = self._tasks.exchange
            metadata = *exchange.metadata(), (WINDOW, str(self._window))
            return _Line(self._connection.channel(), exchange.target, metadata)
        except RemoteError:
            if self._connection.closing.is_set():
                raise
            return None

    def _next(self, line: _Line, under_way: deque[Outgoing]) -> Generator[InferenceResult, None, _Line | None]:
        """Give the next result; where the stream has ended, those of all requests that were on it, and no stream."""
        sent = under_way[0]
        try_s = self._tasks.settings.try_s or self._tasks.settings.deadline_s
        try:
            reply = line.receive(sent.started + try_s - time.perf_counter(), try_s)
        except RemoteError as error:
            line.close()
            self._connection.note(error, line.channel)
            if self._connection.closing.is_set():
                raise
            while under_way:
                sent = under_way[0]
                attempts = self._tasks.attempts(self._on_failure, since_s=sent.started)
                pause_s = attempts.failed(error)
                if pause_s is None:
                    result = self._tasks.told(sent.model.name, _here(sent, attempts), sent.trace)
                else:
                    self._connection.closing.wait(pause_s)
                    result = self._tasks.answer(
                        sent.model, sent.cut, sent.tensors, sent.head_s, self._codec, None, attempts, sent
                    )
                under_way.popleft()
                yield result
            return None
        result = self._tasks.exchange.read(sent, reply)
        if result.error is not None:
            result = self._after_refusal(sent, result, self._tasks.attempts(self._on_failure, since_s=sent.started))
        else:
            self._tasks.breaker.succeeded()
            result = self._tasks.told(sent.model.name, result, sent.trace)
        under_way.popleft()
        yield result
        return line

    def _after_refusal(self, sent: Outgoing, result: InferenceResult, attempts: Attempts) -> InferenceResult:
        """Have a task run that a stream's edge has refused, there or here; ``result`` if nothing else is to be done."""
        assert isinstance(result.error, RemoteError)
        try:
            pause_s = attempts.failed(result.error)
        except RemoteError:
            return self._tasks.told(sent.model.name, result, sent.trace)
        if pause_s is None:
            return self._tasks.told(sent.model.name, _here(sent, attempts), sent.trace)
        self._connection.closing.wait(pause_s)
        return self._tasks.answer(sent.model, sent.cut, sent.tensors, sent.head_s, self._codec, None, attempts, sent)


def _here(sent: Outgoing, attempts: Attempts) -> InferenceResult:
    return finished_here(sent.model, sent.cut, sent.tensors, sent.head_s, sent.started, attempts)


class _Line:
    """A stream of requests, and the thread that reads its replies."""

    def __init__(self, channel: grpc.Channel, target: str, metadata: Metadata) -> None:
        self.channel = channel
        self.lane = Lane(channel, target, metadata)
        self._target = target
        self._arrived: queue.SimpleQueue[bytes | RemoteError] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read_all, name="splitinfer-replies", daemon=True)
        self._reader.start()

    @property
    def has_reply(self) -> bool:
        return not self._arrived.empty()

    def receive(self, left_s: float, deadline_s: float) -> bytes:
        """Wait for the next reply.

        Raises:
            DeadlineError: there is none in time.
            RemoteError: the stream has ended.
        """
        try:
            reply = self._arrived.get(timeout=max(left_s, 0.0))
        except queue.Empty:
            raise DeadlineError(
                f"the edge at {self._target} did not answer within {deadline_s:g} s (deadline_s, --deadline-s)",
                status=grpc.StatusCode.DEADLINE_EXCEEDED.name,
            ) from None
        if isinstance(reply, RemoteError):
            raise reply
        return reply

    def close(self) -> None:
        self.lane.cancel()
        self._reader.join()

    def _read_all(self) -> None:
        try:
            for reply in self.lane.replies():
                self._arrived.put(reply)
            ended = EdgeUnavailableError(f"the edge at {self._target} closed the stream", status="UNAVAILABLE")
            self._arrived.put(ended)
        except RemoteError as error:
            self._arrived.put(error)
