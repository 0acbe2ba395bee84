"""``EdgeClient``: runs heads here and tails on an edge server."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc

from splitinfer.errors import DeadlineError, EdgeUnavailableError, InputError, RemoteError
from splitinfer.runtime.description import EdgeDescription, read_description
from splitinfer.runtime.events import Inferred, Observer, nobody
from splitinfer.runtime.exchange import (
    Exchange,
    ModelId,
    Outgoing,
    cut_with_tail,
    finished_here,
    local_result,
    picture_to_send,
    raised,
    run_head,
    with_encoding,
)
from splitinfer.runtime.lane import Lane
from splitinfer.runtime.malloc import tune_allocator
from splitinfer.runtime.perseverance import Attempts, Breaker, OnFailure, checked_on_failure
from splitinfer.runtime.result import InferenceResult, Timing
from splitinfer.runtime.settings import ClientSettings
from splitinfer.runtime.statuses import StreamEndedError, WrongEdgeError, error_of_call
from splitinfer.runtime.timed_lane import TimedLane, Watchdog
from splitinfer.runtime.tracing import UNTRACED, RequestTrace, Tracing
from splitinfer.runtime.transport import DESCRIBE, INFER, Metadata, checked_target, open_channel

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from splitinfer.graph import SplitModel
    from splitinfer.models import ModelCard
    from splitinfer.runtime.async_client import AsyncEdgeClient

_ASK_AGAIN_S = 0.2  # while waiting for a server that starts


class EdgeClient:
    """Connection to one edge server, for use from any number of threads.

    It connects at first use and again after the connection was lost. Use it as a context manager, or call
    :meth:`close`. ``async with EdgeClient(...)`` gives an :class:`AsyncEdgeClient` of the same settings.

    Example:
        >>> with EdgeClient("localhost:50051") as edge:
        ...     result = edge.infer(split, split.find_cut("layer2"), image)
        >>> result.output, result.timing.wire_s

    Attributes:
        target: ``host:port`` of the server.
        settings: as given.
    """

    def __init__(
        self,
        target: str,
        settings: ClientSettings | None = None,
        *,
        on_failure: OnFailure = "fail",
        observer: Observer = nobody,
        tracing: Tracing | None = None,
    ) -> None:
        """Prepare a client; nothing is connected yet.

        Args:
            target: ``host:port`` of the server.
            settings: of the connection.
            on_failure: what follows where the edge cannot be reached, is slow past the deadline, or refuses, after
                ``settings.retries`` further tries: ``fail`` raises the error; ``fallback`` runs the tail here, on the
                tensors that already cross the cut (``InferenceResult.ran_at`` says so), and asks the edge again by
                itself later; ``wait`` tries until the edge answers.
            observer: told ``Inferred`` of each task that was sent or finished here, on the caller's thread.
            tracing: writes a span of each of them; the edge's own belong to the same trace.

        Raises:
            InputError: the target is not ``host:port``, or there is no such ``on_failure``.
        """
        self.target = checked_target(target)
        self.settings = settings or ClientSettings()
        if self.settings.allocator_tuning:
            tune_allocator()
        self._on_failure = checked_on_failure(on_failure)
        self._tell = observer
        self._tracing = tracing
        self._breaker = Breaker.of(self.settings)
        self._exchange = Exchange(self.target, self.settings)
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        # Replaced after a silence; calls of others may be under way on them until their deadlines.
        self._retired: list[tuple[float, grpc.Channel]] = []
        self._watchdog = Watchdog()
        self._lanes: list[TimedLane] = []
        self._free_lanes: list[TimedLane] = []
        # Of each task that is inside `async with`, those that it has open; a task leaves the last one first.
        self._async: dict[asyncio.Task[Any] | None, list[AsyncEdgeClient]] = {}
        self._closing = threading.Event()

    def describe(self) -> EdgeDescription:
        """Ask the server for its models, cuts, fingerprints and limits.

        Raises:
            EdgeUnavailableError: no server answers.
            RemoteError: it refuses, or speaks another protocol.
        """
        return self._describe(self.settings.deadline_s)

    def wait_ready(self, timeout_s: float) -> EdgeDescription:
        """Ask as :meth:`describe` does until the server answers, for one that is still starting.

        Raises:
            EdgeUnavailableError: none answered within ``timeout_s`` seconds, or at once what answers is another's.
            RemoteError: it refuses, or speaks another protocol.
        """
        give_up_s = time.monotonic() + timeout_s
        while True:
            try:
                return self.describe()
            except EdgeUnavailableError as error:
                if isinstance(error, WrongEdgeError):
                    raise
                left_s = give_up_s - time.monotonic()
                if left_s <= 0 or self._closing.wait(min(_ASK_AGAIN_S, left_s)):
                    raise

    def tolerance(self, split: SplitModel) -> float:
        """Return how far an answer may be from ``split(...)``, for ``check_answer``.

        0, the same bits, unless the engine of either end rounds in its own way, or the server computes in batches.

        Raises:
            EdgeUnavailableError: no server answers.
        """
        if not self._exchange.is_introduced:
            try:
                self.describe()
            except EdgeUnavailableError:
                if self._on_failure != "fallback":
                    raise
        return max(split.tolerance, self._exchange.tolerance(split.name))

    def infer(
        self,
        split: SplitModel,
        cut: int | str,
        *inputs: Any,
        codec: str | None = None,
        on_failure: OnFailure | None = None,
    ) -> InferenceResult:
        """Run the head here and the tail on the server.

        Args:
            split: a model that the server holds too, captured in the same way.
            cut: k in 0..K or a layer's name. At K everything runs here and nothing is sent.
            inputs: what the model takes.
            codec: that tensors are sent in, instead of ``settings.codec``.
            on_failure: for this service, instead of the client's.

        Raises:
            InputError: no such cut, wrong inputs, a message over the limits, or a codec that the server does not take.
            ModelMismatchError: the server holds another model or other weights under this name.
            EdgeUnavailableError: no server answers, or it went away.
            DeadlineError: no answer within ``settings.deadline_s``.
            RemoteError: the server refuses for another reason; ``status`` tells which.
        """
        k = split.find_cut(cut)
        if k == split.num_cuts:
            return local_result(split, k, inputs)
        tensors, head_s = run_head(split, k, inputs)
        return self._finish(split, k, tensors, head_s, codec, self._attempts(on_failure))

    def run_tail(
        self,
        model: SplitModel | ModelId,
        cut: int | str,
        tensors: Sequence[Any],
        *,
        codec: str | None = None,
        on_failure: OnFailure | None = None,
    ) -> InferenceResult:
        """Run the tail on the server, on what a head returned, here or in another runtime. Needs no torch.

        Args:
            model: a model that the server holds too; or the ``ModelId`` of one that this process does not hold. The
                output is then a tuple of arrays, the leaves of what the model returns.
            cut: as for :meth:`infer`; an index for a ``ModelId``.
            tensors: what crosses the cut, in its order: tensors of torch or arrays of numpy.
            codec: as for :meth:`infer`.
            on_failure: as for :meth:`infer`. A model that is only named cannot be run here.

        Raises:
            SplitInferError: as :meth:`infer`.
        """
        return self._finish(model, cut_with_tail(model, cut), tensors, 0.0, codec, self._attempts(on_failure))

    def infer_picture(
        self,
        model: SplitModel | ModelId,
        card: ModelCard,
        picture: Path | Image.Image,
        *,
        codec: str = "jpeg",
        max_pixels: int = 100_000_000,
    ) -> InferenceResult:
        """Send a picture itself, which the server preprocesses, and run the whole model there.

        Args:
            model: as for :meth:`run_tail`.
            card: whose preprocessing is wanted; the server's must be the same.
            picture: a file, or a picture of PIL.
            codec: ``jpeg``, ``jpeg:Q``, ``webp``, ``webp:Q``, ``uint8`` or ``uint8+zstd``.
            max_pixels: largest picture taken.

        Raises:
            InputError: no such codec, no picture, or too large a one.
            ModelMismatchError: the server holds another model, or preprocesses in another way.
            SplitInferError: as :meth:`infer`.
        """
        sent = picture_to_send(card, picture, codec, max_pixels)
        if not self._exchange.is_introduced:
            self.describe()
        self._exchange.check_pictures(model.name, sent.digest)
        result = self._finish(model, 0, sent.tensors, 0.0, sent.wire, self._attempts("fail"))
        return with_encoding(result, sent.encode_s)

    def stream(
        self,
        split: SplitModel,
        cut: int | str,
        inputs: Iterable[Any],
        *,
        window: int | None = None,
        codec: str | None = None,
        on_failure: OnFailure | None = None,
    ) -> Generator[InferenceResult, None, None]:
        """Run many inferences, the next heads while earlier ones are on the wire and on the server.

        Results come in the order of the inputs. A request that the server refuses gives a result with ``error`` set,
        and the stream goes on; reading its ``output`` raises the error.

        Args:
            split: as for :meth:`infer`.
            cut: as for :meth:`infer`.
            inputs: per inference one input, or a tuple of inputs.
            window: requests under way at once; ``settings.window`` by default.
            codec: as for :meth:`infer`.
            on_failure: as for :meth:`infer`.

        Raises:
            SplitInferError: as :meth:`infer`; the connection is lost, or the inputs are wrong.
        """
        k = split.find_cut(cut)
        window = self.settings.window if window is None else window
        if window < 1:
            raise InputError(f"window must be at least 1, not {window}")
        requests = (item if isinstance(item, tuple) else (item,) for item in inputs)
        if k == split.num_cuts:
            return (local_result(split, k, request) for request in requests)
        return self._stream(split, k, requests, window, codec, on_failure)

    def close(self) -> None:
        """Close the connection. Calls under way fail with ``EdgeUnavailableError``."""
        self._closing.set()
        with self._lock:
            channels = [channel for _, channel in self._retired]
            if self._channel is not None:
                channels.append(self._channel)
            self._channel, self._retired = None, []
            lanes = list(self._lanes)
        for lane in lanes:
            lane.cancel()
        self._watchdog.close()
        for channel in channels:
            channel.close()

    def __enter__(self) -> EdgeClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> AsyncEdgeClient:
        from splitinfer.runtime.async_client import AsyncEdgeClient

        client = AsyncEdgeClient(
            self.target, self.settings, on_failure=self._on_failure, observer=self._tell, tracing=self._tracing
        )
        self._async.setdefault(asyncio.current_task(), []).append(client)
        return client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = asyncio.current_task()
        client = self._async[task].pop()
        if not self._async[task]:
            del self._async[task]
        await client.close()

    def _attempts(self, on_failure: OnFailure | None, since_s: float | None = None) -> Attempts:
        return Attempts(self.settings, on_failure or self._on_failure, self._breaker, since_s)

    def _describe(self, timeout_s: float) -> EdgeDescription:
        data = self._call(DESCRIBE, Exchange.describe_request(), timeout_s)
        description = read_description(data, self.settings.limits)
        self._exchange.introduce(description)
        return description

    def _finish(
        self,
        model: SplitModel | ModelId,
        cut: int,
        tensors: Sequence[Any],
        head_s: float,
        codec: str | None,
        attempts: Attempts,
        request: Outgoing | None = None,
    ) -> InferenceResult:
        """Have the tail of a task run, there or here; a request that was sent before is sent again."""
        trace = self._begin(model.name, cut, head_s) if request is None else request.trace
        try:
            result = self._tried(model, cut, tensors, head_s, codec, attempts, request, trace)
        except BaseException as error:
            trace.failed(error)
            raise
        return self._told(model.name, result, trace)

    def _begin(self, model: str, cut: int, head_s: float) -> RequestTrace:
        return UNTRACED if self._tracing is None else self._tracing.begin(model, cut, head_s)

    def _tried(
        self,
        model: SplitModel | ModelId,
        cut: int,
        tensors: Sequence[Any],
        head_s: float,
        codec: str | None,
        attempts: Attempts,
        request: Outgoing | None,
        trace: RequestTrace,
    ) -> InferenceResult:
        since_s = time.perf_counter()
        while attempts.may_try():
            try:
                attempts.check_busy()
                if not self._exchange.is_introduced:
                    self._describe(attempts.timeout_s())
                if request is None:
                    request = self._exchange.prepare(model, cut, tensors, head_s, codec, trace)
                result = raised(self._exchange.read(request, self._transfer(request.data, attempts.timeout_s())))
            except RemoteError as error:
                pause_s = None if self._closing.is_set() else attempts.failed(error)
                if self._closing.is_set() or (pause_s is not None and self._closing.wait(pause_s)):
                    raise
                if pause_s is None:
                    break
            else:
                attempts.answered()
                if self._retired:
                    self._close_retired()
                return replace(result, retries=attempts.retries) if attempts.retries else result
        return finished_here(model, cut, tensors, head_s, since_s, attempts)

    def _told(self, model: str, result: InferenceResult, trace: RequestTrace) -> InferenceResult:
        trace.done(result)
        if result.error is None and self._tell is not nobody:
            self._tell(Inferred(model, result.cut, result.ran_at, result.retries))
        return result

    def _answer(
        self,
        model: SplitModel | ModelId,
        cut: int,
        tensors: Sequence[Any],
        head_s: float,
        codec: str | None,
        attempts: Attempts,
        request: Outgoing | None = None,
    ) -> InferenceResult:
        """As :meth:`_finish`, but a refusal of this request alone is the ``error`` of its result."""
        try:
            return self._finish(model, cut, tensors, head_s, codec, attempts, request)
        except (EdgeUnavailableError, DeadlineError):
            raise
        except RemoteError as refusal:
            if not self._exchange.is_introduced:
                raise
            return InferenceResult(cut, Timing(head_s), error=refusal)

    def _transfer(self, data: bytes, timeout_s: float) -> bytes:
        """Send a request over an open stream if it is small and a stream is free, else as a call of its own."""
        lane = self._free_lane() if len(data) <= self.settings.stream_up_to_bytes else None
        if lane is None:
            return self._call(INFER, data, timeout_s)
        channel = self._channel
        try:
            return lane.exchange(data, timeout_s)
        except RemoteError as error:
            self._note(error, channel)
            raise
        finally:
            self._free_lanes.append(lane)

    def _free_lane(self) -> TimedLane | None:
        with self._lock:
            if self._free_lanes:
                return self._free_lanes.pop()  # the one used last: the others may close unused
            if len(self._lanes) == self.settings.streams:
                return None
            lane = TimedLane(self._open_channel, self._exchange.metadata, self.target, self._watchdog)
            self._lanes.append(lane)
            return lane

    def _call(self, method: str, data: bytes, timeout_s: float) -> bytes:
        metadata = self._exchange.metadata()
        channel = self._open_channel()
        try:
            reply: bytes = channel.unary_unary(method)(data, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            failure = error_of_call(error, self.target)
            self._note(failure, channel)
            raise failure from None
        except ValueError as error:  # gRPC's word for a channel that another thread has closed
            raise self._lost() from error
        return reply

    def _stream(
        self,
        split: SplitModel,
        cut: int,
        requests: Iterator[tuple[Any, ...]],
        window: int,
        codec: str | None,
        on_failure: OnFailure | None,
    ) -> Generator[InferenceResult, None, None]:
        under_way: deque[Outgoing] = deque()
        line: _Line | None = None
        trace = UNTRACED
        try:
            for request in requests:
                tensors, head_s = run_head(split, cut, request)
                while line is not None and under_way and (len(under_way) >= window or line.has_reply):
                    line = yield from self._next(line, under_way, codec, on_failure)
                if line is None and not self._breaker.is_open:
                    line = self._open_line()
                if line is None:  # one by one, until the edge answers again
                    yield self._answer(split, cut, tensors, head_s, codec, self._attempts(on_failure))
                    continue
                try:
                    trace = self._begin(split.name, cut, head_s)
                    outgoing = self._exchange.prepare(split, cut, tensors, head_s, codec, trace)
                except RemoteError as error:
                    trace.failed(error)
                    yield self._finish(split, cut, tensors, head_s, codec, self._attempts(on_failure))
                    continue
                line.lane.send(outgoing.data)
                under_way.append(outgoing)
            while line is not None and under_way:
                line = yield from self._next(line, under_way, codec, on_failure)
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
            if not self._exchange.is_introduced:
                self._describe(self.settings.try_s or self.settings.deadline_s)
            return _Line(self._open_channel(), self.target, self._exchange.metadata())
        except RemoteError:
            if self._closing.is_set():
                raise
            return None

    def _next(
        self, line: _Line, under_way: deque[Outgoing], codec: str | None, on_failure: OnFailure | None
    ) -> Generator[InferenceResult, None, _Line | None]:
        """Give the next result; where the stream has ended, those of all requests that were on it, and no stream."""
        sent = under_way[0]
        try_s = self.settings.try_s or self.settings.deadline_s
        try:
            reply = line.receive(sent.started + try_s - time.perf_counter(), try_s)
        except RemoteError as error:
            line.close()
            self._note(error, line.channel)
            if self._closing.is_set():
                raise
            while under_way:
                sent = under_way[0]
                attempts = self._attempts(on_failure, since_s=sent.started)
                pause_s = attempts.failed(error)
                if pause_s is None:
                    result = self._told(sent.model.name, _here(sent, attempts), sent.trace)
                else:
                    self._closing.wait(pause_s)
                    result = self._answer(sent.model, sent.cut, sent.tensors, sent.head_s, codec, attempts, sent)
                under_way.popleft()
                yield result
            return None
        result = self._exchange.read(sent, reply)
        if result.error is not None:
            result = self._after_refusal(sent, result, codec, self._attempts(on_failure, since_s=sent.started))
        else:
            self._breaker.succeeded()
            result = self._told(sent.model.name, result, sent.trace)
        under_way.popleft()
        yield result
        return line

    def _after_refusal(
        self, sent: Outgoing, result: InferenceResult, codec: str | None, attempts: Attempts
    ) -> InferenceResult:
        """Have a task run that a stream's edge has refused, there or here; ``result`` if nothing else is to be done."""
        assert isinstance(result.error, RemoteError)
        try:
            pause_s = attempts.failed(result.error)
        except RemoteError:
            return self._told(sent.model.name, result, sent.trace)
        if pause_s is None:
            return self._told(sent.model.name, _here(sent, attempts), sent.trace)
        self._closing.wait(pause_s)
        return self._answer(sent.model, sent.cut, sent.tensors, sent.head_s, codec, attempts, sent)

    def _open_channel(self) -> grpc.Channel:
        with self._lock:
            if self._closing.is_set():
                raise EdgeUnavailableError(f"the client of {self.target} is closed", status="UNAVAILABLE")
            if self._channel is None:
                self._channel = open_channel(self.target, self.settings)
            return self._channel

    def _note(self, error: RemoteError, channel: grpc.Channel | None) -> None:
        """After a lost or silent connection start afresh: a new channel has no waiting time behind it."""
        if isinstance(error, StreamEndedError) or not isinstance(error, EdgeUnavailableError | DeadlineError):
            return
        self._close_retired()
        lost: grpc.Channel | None = None
        with self._lock:
            if channel is not None and self._channel is channel:
                self._channel = None
                if isinstance(error, EdgeUnavailableError):
                    self._exchange.forget()
                    lost = channel
                else:
                    self._retired.append((time.monotonic(), channel))
        if lost is not None:
            lost.close()

    def _close_retired(self) -> None:
        """Close the channels on which no call can be under way any more."""
        with self._lock:
            since_s = time.monotonic() - self.settings.deadline_s
            ended = [old for retired_s, old in self._retired if retired_s < since_s]
            self._retired = [(retired_s, old) for retired_s, old in self._retired if retired_s >= since_s]
        for old in ended:
            old.close()

    def _lost(self) -> EdgeUnavailableError:
        what = f"the client of {self.target} is closed" if self._closing.is_set() else f"lost the edge at {self.target}"
        return EdgeUnavailableError(what, status="UNAVAILABLE")


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
