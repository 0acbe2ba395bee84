"""``AsyncEdgeClient``: the client for asyncio, on gRPC's own asyncio interface."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc

from splitinfer.errors import DeadlineError, EdgeUnavailableError, InputError, RemoteError
from splitinfer.runtime.description import EdgeDescription, read_description
from splitinfer.runtime.exchange import Exchange, ModelId, cut_with_tail, local_result, raised, run_head
from splitinfer.runtime.malloc import tune_allocator
from splitinfer.runtime.result import InferenceResult, Timing
from splitinfer.runtime.settings import ClientSettings
from splitinfer.runtime.statuses import error_of_call
from splitinfer.runtime.transport import DESCRIBE, INFER, checked_target, open_async_channel

if TYPE_CHECKING:
    from splitinfer.graph import SplitModel


class AsyncEdgeClient:
    """Connection to one edge server, for one event loop. Heads run in threads, so that the loop goes on.

    Example:
        >>> async with EdgeClient("localhost:50051") as edge:
        ...     results = await asyncio.gather(*(edge.infer(split, 7, image) for image in images))

    Attributes:
        target: ``host:port`` of the server.
        settings: as given; single requests are calls of their own, so ``stream_up_to_bytes`` plays no part.
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
        self._channel: grpc.aio.Channel | None = None

    async def describe(self) -> EdgeDescription:
        """As :meth:`EdgeClient.describe`."""
        description = read_description(await self._call(DESCRIBE, Exchange.describe_request()), self.settings.limits)
        self._exchange.introduce(description)
        return description

    async def infer(self, split: SplitModel, cut: int | str, *inputs: Any, codec: str | None = None) -> InferenceResult:
        """As :meth:`EdgeClient.infer`; any number may be under way at once."""
        return raised(await self._infer(split, split.find_cut(cut), inputs, codec))

    async def run_tail(
        self, model: SplitModel | ModelId, cut: int | str, tensors: Sequence[Any], *, codec: str | None = None
    ) -> InferenceResult:
        """As :meth:`EdgeClient.run_tail`."""
        return raised(await self._finish(model, cut_with_tail(model, cut), tensors, 0.0, codec))

    async def stream(
        self,
        split: SplitModel,
        cut: int | str,
        inputs: Iterable[Any] | AsyncIterable[Any],
        *,
        window: int | None = None,
        codec: str | None = None,
    ) -> AsyncGenerator[InferenceResult, None]:
        """As :meth:`EdgeClient.stream`; each request is a call of its own here."""
        window = self.settings.window if window is None else window
        if window < 1:
            raise InputError(f"window must be at least 1, not {window}")
        k = split.find_cut(cut)
        under_way: list[asyncio.Task[InferenceResult]] = []
        try:
            async for item in _each(inputs):
                request = item if isinstance(item, tuple) else (item,)
                under_way.append(asyncio.create_task(self._infer(split, k, request, codec)))
                if len(under_way) >= window:
                    yield await under_way.pop(0)
            while under_way:
                yield await under_way.pop(0)
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def close(self) -> None:
        """Close the connection."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def __aenter__(self) -> AsyncEdgeClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _infer(self, split: SplitModel, k: int, inputs: tuple[Any, ...], codec: str | None) -> InferenceResult:
        if k == split.num_cuts:
            return await asyncio.to_thread(local_result, split, k, inputs)
        tensors, head_s = await asyncio.to_thread(run_head, split, k, inputs)
        return await self._finish(split, k, tensors, head_s, codec)

    async def _finish(
        self, model: SplitModel | ModelId, cut: int, tensors: Sequence[Any], head_s: float, codec: str | None
    ) -> InferenceResult:
        if not self._exchange.is_introduced:
            await self.describe()
        request = self._exchange.prepare(model, cut, tensors, head_s, codec)
        try:
            data = await self._call(INFER, request.data)
        except (EdgeUnavailableError, DeadlineError):
            raise
        except RemoteError as refusal:  # of this request alone: a stream of them goes on
            return InferenceResult(cut, Timing(head_s), len(request.data), 0, refusal)
        return self._exchange.read(request, data)

    async def _call(self, method: str, data: bytes) -> bytes:
        if self._channel is None:
            self._channel = open_async_channel(self.target, self.settings)
        try:
            call = self._channel.unary_unary(method)(
                data, timeout=self.settings.deadline_s, metadata=self._exchange.metadata()
            )
            reply: bytes = await call
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                self._exchange.forget()
            raise error_of_call(error, self.target) from None
        return reply


async def _each(items: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
