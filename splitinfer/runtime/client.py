"""``EdgeClient``: runs heads here and tails on an edge server."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Generator, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from splitinfer.errors import EdgeUnavailableError
from splitinfer.runtime.arguments import (
    check_choices,
    checked_card,
    checked_inputs,
    checked_settings,
    checked_split,
    checked_tensors,
    checked_window,
)
from splitinfer.runtime.connection import Connection
from splitinfer.runtime.description import EdgeDescription
from splitinfer.runtime.events import Observer, nobody
from splitinfer.runtime.exchange import (
    Exchange,
    ModelId,
    cut_with_tail,
    local_result,
    picture_to_send,
    run_head,
    with_encoding,
)
from splitinfer.runtime.malloc import tune_allocator
from splitinfer.runtime.perseverance import OnFailure, checked_on_failure
from splitinfer.runtime.result import InferenceResult
from splitinfer.runtime.settings import ClientSettings
from splitinfer.runtime.statuses import WrongEdgeError
from splitinfer.runtime.streaming import Streaming
from splitinfer.runtime.tasks import Tasks
from splitinfer.runtime.tracing import Tracing
from splitinfer.runtime.transport import checked_target

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
        self.settings = checked_settings(settings, ClientSettings)
        if self.settings.allocator_tuning:
            tune_allocator()
        self._on_failure = checked_on_failure(on_failure)
        self._tell = observer
        self._tracing = tracing
        self._exchange = Exchange(self.target, self.settings)
        self._connection = Connection(self.target, self.settings, self._exchange)
        self._tasks = Tasks(
            self.settings,
            self._exchange,
            self._connection,
            on_failure=self._on_failure,
            observer=observer,
            tracing=tracing,
        )
        # A client that nobody closes, nor computes with any more, leaves no thread and no connection behind.
        weakref.finalize(self._tasks, self._connection.close).atexit = False
        # Of each task that is inside `async with`, those that it has open; a task leaves the last one first.
        self._async: dict[asyncio.Task[Any] | None, list[AsyncEdgeClient]] = {}

    def describe(self) -> EdgeDescription:
        """Ask the server for its models, cuts, fingerprints and limits.

        Raises:
            EdgeUnavailableError: no server answers.
            RemoteError: it refuses, or speaks another protocol.
        """
        return self._tasks.describe(self.settings.deadline_s)

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
                if left_s <= 0 or self._connection.closing.wait(min(_ASK_AGAIN_S, left_s)):
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
        if codec is not None or on_failure is not None:
            check_choices(codec, on_failure)
        k = checked_split(split).find_cut(cut)
        if k == split.num_cuts:
            return local_result(split, k, inputs)
        tensors, head_s = run_head(split, k, inputs)
        return self._tasks.finish(split, k, tensors, head_s, codec, on_failure)

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
        if codec is not None or on_failure is not None:
            check_choices(codec, on_failure)
        if type(tensors) not in (tuple, list):
            checked_tensors(tensors)
        if type(cut) is not int or self._exchange.known(model, cut, codec) is None:
            cut = cut_with_tail(model if isinstance(model, ModelId) else checked_split(model), cut)
        return self._tasks.finish(model, cut, tensors, 0.0, codec, on_failure)

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
        sent = picture_to_send(checked_card(card), picture, codec, max_pixels)
        if not self._exchange.is_introduced:
            self.describe()
        self._exchange.check_pictures(model.name, sent.digest)
        result = self._tasks.finish(model, 0, sent.tensors, 0.0, sent.wire, "fail")
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
        check_choices(codec, on_failure)
        k = checked_split(split).find_cut(cut)
        window = self.settings.window if window is None else checked_window(window)
        requests = (item if isinstance(item, tuple) else (item,) for item in checked_inputs(inputs))
        if k == split.num_cuts:
            return (local_result(split, k, request) for request in requests)
        return Streaming(self._tasks, self._connection, window, codec, on_failure).results(split, k, requests)

    def close(self) -> None:
        """Close the connection. Calls under way fail with ``EdgeUnavailableError``."""
        self._connection.close()

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
