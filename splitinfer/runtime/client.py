"""``EdgeClient``: runs heads here and tails on an edge server."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc

from splitinfer.errors import DeadlineError, EdgeUnavailableError, InputError, RemoteError
from splitinfer.runtime.description import EdgeDescription, read_description
from splitinfer.runtime.exchange import Exchange, ModelId, Outgoing, cut_with_tail, local_result, raised, run_head
from splitinfer.runtime.lane import Lane
from splitinfer.runtime.malloc import tune_allocator
from splitinfer.runtime.result import InferenceResult
from splitinfer.runtime.settings import ClientSettings
from splitinfer.runtime.statuses import error_of_call
from splitinfer.runtime.timed_lane import TimedLane
from splitinfer.runtime.transport import DESCRIBE, INFER, checked_target, open_channel

if TYPE_CHECKING:
    from splitinfer.graph import SplitModel
    from splitinfer.runtime.async_client import AsyncEdgeClient


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

    def __init__(self, target: str, settings: ClientSettings | None = None) -> None:
        """Prepare a client; nothing is connected yet.

        Raises:
            InputError: the target is not ``host:port``.
        """
        self.target = checked_target(target)
        self.settings = settings or ClientSettings()
        if self.settings.allocator_tuning:
            tune_allocator()
        self._exchange = Exchange(self.target, self.settings)
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._lane = TimedLane(self._open_channel, self._exchange.metadata, self.target, self.settings.deadline_s)
        self._lane_is_free = threading.Lock()
        # Of each task that is inside `async with`, those that it has open; a task leaves the last one first.
        self._async: dict[asyncio.Task[Any] | None, list[AsyncEdgeClient]] = {}
        self._is_closed = False

    def describe(self) -> EdgeDescription:
        """Ask the server for its models, cuts, fingerprints and limits.

        Raises:
            EdgeUnavailableError: no server answers.
            RemoteError: it refuses, or speaks another protocol.
        """
        description = read_description(self._call(DESCRIBE, Exchange.describe_request()), self.settings.limits)
        self._exchange.introduce(description)
        return description

    def tolerance(self, split: SplitModel) -> float:
        """Return how far an answer may be from ``split(...)``, for ``check_answer``.

        0, the same bits, unless the engine of either end rounds in its own way, or the server computes in batches.

        Raises:
            EdgeUnavailableError: no server answers.
        """
        if not self._exchange.is_introduced:
            self.describe()
        return max(split.tolerance, self._exchange.tolerance(split.name))

    def infer(self, split: SplitModel, cut: int | str, *inputs: Any, codec: str | None = None) -> InferenceResult:
        """Run the head here and the tail on the server.

        Args:
            split: a model that the server holds too, captured in the same way.
            cut: k in 0..K or a layer's name. At K everything runs here and nothing is sent.
            inputs: what the model takes.
            codec: that tensors are sent in, instead of ``settings.codec``.

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
        return self._finish(split, k, tensors, head_s, codec)

    def run_tail(
        self, model: SplitModel | ModelId, cut: int | str, tensors: Sequence[Any], *, codec: str | None = None
    ) -> InferenceResult:
        """Run the tail on the server, on what a head returned, here or in another runtime. Needs no torch.

        Args:
            model: a model that the server holds too; or the ``ModelId`` of one that this process does not hold. The
                output is then a tuple of arrays, the leaves of what the model returns.
            cut: as for :meth:`infer`; an index for a ``ModelId``.
            tensors: what crosses the cut, in its order: tensors of torch or arrays of numpy.
            codec: as for :meth:`infer`.

        Raises:
            SplitInferError: as :meth:`infer`.
        """
        return self._finish(model, cut_with_tail(model, cut), tensors, 0.0, codec)

    def stream(
        self,
        split: SplitModel,
        cut: int | str,
        inputs: Iterable[Any],
        *,
        window: int | None = None,
        codec: str | None = None,
    ) -> Generator[InferenceResult, None, None]:
        """Run many inferences, the next heads while earlier ones are on the wire and on the server.

        Results come in the order of the inputs. A request that the server refuses gives a result with ``error`` set,
        and the stream goes on; reading its ``output`` raises the error.

        Args:
            split, cut: as for :meth:`infer`.
            inputs: per inference one input, or a tuple of inputs.
            window: requests under way at once; ``settings.window`` by default.
            codec: as for :meth:`infer`.

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
        return self._stream(split, k, requests, window, codec)

    def close(self) -> None:
        """Close the connection. Calls under way fail with ``EdgeUnavailableError``."""
        with self._lock:
            self._is_closed = True
            channel, self._channel = self._channel, None
        self._lane.close()
        if channel is not None:
            channel.close()

    def __enter__(self) -> EdgeClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> AsyncEdgeClient:
        from splitinfer.runtime.async_client import AsyncEdgeClient

        client = AsyncEdgeClient(self.target, self.settings)
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

    def _finish(
        self, model: SplitModel | ModelId, cut: int, tensors: Sequence[Any], head_s: float, codec: str | None
    ) -> InferenceResult:
        if not self._exchange.is_introduced:
            self.describe()
        request = self._exchange.prepare(model, cut, tensors, head_s, codec)
        return raised(self._exchange.read(request, self._transfer(request.data)))

    def _transfer(self, data: bytes) -> bytes:
        """Send a request over the open stream if it is small and the stream is free, else as a call of its own."""
        if len(data) > self.settings.stream_up_to_bytes or not self._lane_is_free.acquire(blocking=False):
            return self._call(INFER, data)
        try:
            return self._lane.exchange(data)
        except RemoteError as error:
            self._note(error)
            raise
        finally:
            self._lane_is_free.release()

    def _call(self, method: str, data: bytes) -> bytes:
        metadata = self._exchange.metadata()
        call = self._open_channel().unary_unary(method)
        try:
            reply: bytes = call(data, timeout=self.settings.deadline_s, metadata=metadata)
        except grpc.RpcError as error:
            failure = error_of_call(error, self.target)
            self._note(failure)
            raise failure from None
        except ValueError as error:  # gRPC's word for a channel that another thread has closed
            raise self._closed() from error
        return reply

    def _stream(
        self, split: SplitModel, cut: int, requests: Iterator[tuple[Any, ...]], window: int, codec: str | None
    ) -> Generator[InferenceResult, None, None]:
        if not self._exchange.is_introduced:
            self.describe()
        lane = Lane(self._open_channel(), self.target, self._exchange.metadata())
        arrived: queue.SimpleQueue[bytes | RemoteError | None] = queue.SimpleQueue()
        reader = threading.Thread(target=_read_all, args=(lane, arrived), name="splitinfer-replies", daemon=True)
        reader.start()
        under_way: deque[Outgoing] = deque()
        is_finished = False
        try:
            while True:
                while under_way and not arrived.empty():
                    yield self._next_result(under_way, arrived)
                if not is_finished and len(under_way) < window:
                    request = next(requests, None)
                    if request is None:
                        is_finished = True
                        lane.finish()
                        continue
                    tensors, head_s = run_head(split, cut, request)
                    outgoing = self._exchange.prepare(split, cut, tensors, head_s, codec)
                    lane.send(outgoing.data)
                    under_way.append(outgoing)
                elif under_way:
                    yield self._next_result(under_way, arrived)
                else:
                    return
        finally:
            lane.cancel()
            reader.join()

    def _next_result(
        self, under_way: deque[Outgoing], arrived: queue.SimpleQueue[bytes | RemoteError | None]
    ) -> InferenceResult:
        sent = under_way[0]
        left_s = sent.started + self.settings.deadline_s - time.perf_counter()
        try:
            data = arrived.get(timeout=max(left_s, 0.0))
        except queue.Empty:
            raise DeadlineError(
                f"the edge at {self.target} did not answer within {self.settings.deadline_s:g} s",
                status=grpc.StatusCode.DEADLINE_EXCEEDED.name,
            ) from None
        if data is None:
            data = EdgeUnavailableError(f"the edge at {self.target} closed the stream", status="UNAVAILABLE")
        if isinstance(data, RemoteError):
            self._note(data)
            raise data
        under_way.popleft()
        return self._exchange.read(sent, data)

    def _open_channel(self) -> grpc.Channel:
        with self._lock:
            if self._is_closed:
                raise self._closed()
            if self._channel is None:
                self._channel = open_channel(self.target, self.settings)
            return self._channel

    def _note(self, error: RemoteError) -> None:
        """After a lost connection start afresh: a new channel has no waiting time behind it."""
        if isinstance(error, EdgeUnavailableError):
            self._exchange.forget()
            with self._lock:
                channel, self._channel = self._channel, None
            if channel is not None:
                channel.close()

    def _closed(self) -> EdgeUnavailableError:
        return EdgeUnavailableError(f"the client of {self.target} is closed", status="UNAVAILABLE")


def _read_all(lane: Lane, arrived: queue.SimpleQueue[bytes | RemoteError | None]) -> None:
    try:
        for reply in lane.replies():
            arrived.put(reply)
        arrived.put(None)
    except RemoteError as error:
        arrived.put(error)
