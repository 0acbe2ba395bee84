"""``AsyncEdgeClient``: the client for asyncio, on gRPC's own asyncio interface."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc

from splitinfer.errors import DeadlineError, EdgeUnavailableError, RemoteError
from splitinfer.runtime.arguments import (
    check_choices,
    checked_card,
    checked_inputs,
    checked_settings,
    checked_split,
    checked_tensors,
    checked_window,
)
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
from splitinfer.runtime.malloc import tune_allocator
from splitinfer.runtime.perseverance import Attempts, Breaker, OnFailure, checked_on_failure
from splitinfer.runtime.result import InferenceResult, Timing
from splitinfer.runtime.settings import ClientSettings
from splitinfer.runtime.statuses import StreamEndedError, error_of_call
from splitinfer.runtime.tracing import UNTRACED, RequestTrace, Tracing
from splitinfer.runtime.transport import DESCRIBE, INFER, checked_target, open_async_channel

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from splitinfer.graph import SplitModel
    from splitinfer.models import ModelCard


class AsyncEdgeClient:
    """Connection to one edge server, for one event loop. Heads run in threads, so that the loop goes on.

    Example:
        >>> async with EdgeClient("localhost:50051") as edge:
        ...     results = await asyncio.gather(*(edge.infer(split, 7, image) for image in images))

    Attributes:
        target: ``host:port`` of the server.
        settings: as given; single requests are calls of their own, so ``stream_up_to_bytes`` plays no part.
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
        """Prepare a client; nothing is connected yet. As :class:`EdgeClient`.

        Raises:
            InputError: the target is not ``host:port``, or there is no such ``on_failure``.
        """
        self.target = checked_target(target)
        self.settings = checked_settings(settings, ClientSettings)
        if self.settings.allocator_tuning:
            tune_allocator()
        self._on_failure = checked_on_failure(on_failure)
        self._tell = observer
        self._tracing = tracing
        self._breaker = Breaker.of(self.settings)
        self._exchange = Exchange(self.target, self.settings)
        self._channel: grpc.aio.Channel | None = None
        # Replaced after a loss or a silence, and closed once the calls of others on them have ended.
        self._retired: dict[grpc.aio.Channel, asyncio.Task[None]] = {}
        self._is_closed = False

    async def describe(self) -> EdgeDescription:
        """As :meth:`EdgeClient.describe`."""
        return await self._describe(self.settings.deadline_s)

    async def infer(
        self,
        split: SplitModel,
        cut: int | str,
        *inputs: Any,
        codec: str | None = None,
        on_failure: OnFailure | None = None,
    ) -> InferenceResult:
        """As :meth:`EdgeClient.infer`; any number may be under way at once.

        Args:
            split: a model that the server holds too.
            cut: k in 0..K or a layer's name.
            inputs: what the model takes.
            codec: that tensors are sent in, instead of ``settings.codec``.
            on_failure: for this service, instead of the client's.

        Raises:
            SplitInferError: as there.
        """
        check_choices(codec, on_failure)
        return raised(await self._infer(split, checked_split(split).find_cut(cut), inputs, codec, on_failure))

    async def run_tail(
        self,
        model: SplitModel | ModelId,
        cut: int | str,
        tensors: Sequence[Any],
        *,
        codec: str | None = None,
        on_failure: OnFailure | None = None,
    ) -> InferenceResult:
        """As :meth:`EdgeClient.run_tail`, with the same arguments.

        Args:
            model: a model that the server holds too, or its ``ModelId``.
            cut: as for :meth:`infer`; an index for a ``ModelId``.
            tensors: what crosses the cut, in its order.
            codec: as for :meth:`infer`.
            on_failure: as for :meth:`infer`.

        Raises:
            SplitInferError: as there.
        """
        check_choices(codec, on_failure)
        k = cut_with_tail(model if isinstance(model, ModelId) else checked_split(model), cut)
        return raised(await self._finish(model, k, checked_tensors(tensors), 0.0, codec, on_failure))

    async def infer_picture(
        self,
        model: SplitModel | ModelId,
        card: ModelCard,
        picture: Path | Image.Image,
        *,
        codec: str = "jpeg",
        max_pixels: int = 100_000_000,
    ) -> InferenceResult:
        """As :meth:`EdgeClient.infer_picture`, with the same arguments.

        Args:
            model: as for :meth:`run_tail`.
            card: whose preprocessing is wanted; the server's must be the same.
            picture: a file, or a picture of PIL.
            codec: ``jpeg``, ``jpeg:Q``, ``webp``, ``webp:Q``, ``uint8`` or ``uint8+zstd``.
            max_pixels: largest picture taken.

        Raises:
            SplitInferError: as there.
        """
        sent = picture_to_send(checked_card(card), picture, codec, max_pixels)
        if not self._exchange.is_introduced:
            await self.describe()
        self._exchange.check_pictures(model.name, sent.digest)
        result = raised(await self._finish(model, 0, sent.tensors, 0.0, sent.wire, "fail"))
        return with_encoding(result, sent.encode_s)

    async def stream(
        self,
        split: SplitModel,
        cut: int | str,
        inputs: Iterable[Any] | AsyncIterable[Any],
        *,
        window: int | None = None,
        codec: str | None = None,
        on_failure: OnFailure | None = None,
    ) -> AsyncGenerator[InferenceResult, None]:
        """As :meth:`EdgeClient.stream`; each request is a call of its own here.

        Args:
            split: as for :meth:`infer`.
            cut: as for :meth:`infer`.
            inputs: per inference one input, or a tuple of inputs; also an asynchronous iterable.
            window: requests under way at once; ``settings.window`` by default.
            codec: as for :meth:`infer`.
            on_failure: as for :meth:`infer`.

        Raises:
            SplitInferError: as there.
        """
        check_choices(codec, on_failure)
        window = self.settings.window if window is None else checked_window(window)
        k = checked_split(split).find_cut(cut)
        under_way: list[asyncio.Task[InferenceResult]] = []
        items = _each(checked_inputs(inputs))
        wrong: Exception | None = None
        try:
            while True:
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    break
                except Exception as error:  # noqa: BLE001 - the inputs' own; what was sent before is answered first
                    wrong = error
                    break
                request = item if isinstance(item, tuple) else (item,)
                under_way.append(asyncio.create_task(self._infer(split, k, request, codec, on_failure)))
                if len(under_way) >= window:
                    yield await under_way.pop(0)
            while under_way:
                yield await under_way.pop(0)
            if wrong is not None:
                raise wrong
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def close(self) -> None:
        """Close the connection."""
        self._is_closed = True
        channel, self._channel = self._channel, None
        for old in [*self._retired, *([] if channel is None else [channel])]:
            await old.close()
        await asyncio.gather(*self._retired.values())

    async def __aenter__(self) -> AsyncEdgeClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _infer(
        self, split: SplitModel, k: int, inputs: tuple[Any, ...], codec: str | None, on_failure: OnFailure | None
    ) -> InferenceResult:
        if k == split.num_cuts:
            return await asyncio.to_thread(local_result, split, k, inputs)
        tensors, head_s = await asyncio.to_thread(run_head, split, k, inputs)
        return await self._finish(split, k, tensors, head_s, codec, on_failure)

    async def _describe(self, timeout_s: float) -> EdgeDescription:
        data = await self._call(DESCRIBE, Exchange.describe_request(), timeout_s)
        description = read_description(data, self.settings.limits)
        self._exchange.introduce(description)
        return description

    async def _finish(
        self,
        model: SplitModel | ModelId,
        cut: int,
        tensors: Sequence[Any],
        head_s: float,
        codec: str | None,
        on_failure: OnFailure | None,
    ) -> InferenceResult:
        trace = UNTRACED if self._tracing is None else self._tracing.begin(model.name, cut, head_s)
        try:
            result = await self._tried(model, cut, tensors, head_s, codec, on_failure, trace)
        except BaseException as error:
            trace.failed(error)
            raise
        trace.done(result)
        if result.error is None:
            self._tell(Inferred(model.name, result.cut, result.ran_at, result.retries))
        return result

    async def _tried(
        self,
        model: SplitModel | ModelId,
        cut: int,
        tensors: Sequence[Any],
        head_s: float,
        codec: str | None,
        on_failure: OnFailure | None,
        trace: RequestTrace,
    ) -> InferenceResult:
        chosen = checked_on_failure(on_failure) if on_failure else self._on_failure
        attempts = Attempts(self.settings, chosen, self._breaker)
        request: Outgoing | None = None
        since_s = time.perf_counter()
        while attempts.may_try():
            try:
                attempts.check_busy()
                if not self._exchange.is_introduced:
                    await self._describe(attempts.timeout_s())
                if request is None:
                    request = self._exchange.prepare(model, cut, tensors, head_s, codec, trace)
                data = await self._call(INFER, bytes(request.data), attempts.timeout_s())
                result = raised(self._exchange.read(request, data))
            except RemoteError as error:
                if self._is_closed:
                    raise
                try:
                    pause_s = attempts.failed(error)
                except (EdgeUnavailableError, DeadlineError):
                    raise
                except RemoteError as refusal:  # of this request alone: a stream of them goes on
                    if request is None:
                        raise
                    return InferenceResult(cut, Timing(head_s), len(request.data), 0, refusal)
                if pause_s is None:
                    break
                await asyncio.sleep(pause_s)
            else:
                self._breaker.succeeded()
                return replace(result, retries=attempts.retries)
        return await asyncio.to_thread(finished_here, model, cut, tensors, head_s, since_s, attempts)

    async def _call(self, method: str, data: bytes, timeout_s: float) -> bytes:
        if self._is_closed:
            raise EdgeUnavailableError(f"the client of {self.target} is closed", status="UNAVAILABLE")
        if self._channel is None:
            self._channel = open_async_channel(self.target, self.settings)
        channel = self._channel
        try:
            call = channel.unary_unary(method)(data, timeout=timeout_s, metadata=self._exchange.metadata())
            reply: bytes = await call
        except grpc.RpcError as error:
            failure = error_of_call(error, self.target)
            is_lost = isinstance(failure, EdgeUnavailableError | DeadlineError)
            if is_lost and not isinstance(failure, StreamEndedError) and self._channel is channel:
                self._retire(channel)
                if isinstance(failure, EdgeUnavailableError):
                    self._exchange.forget()
            raise failure from None
        return reply

    def _retire(self, channel: grpc.aio.Channel) -> None:
        self._channel = None
        closing = asyncio.create_task(channel.close(self.settings.deadline_s))
        self._retired[channel] = closing
        closing.add_done_callback(lambda task: self._retired.pop(channel, None))


async def _each(items: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
