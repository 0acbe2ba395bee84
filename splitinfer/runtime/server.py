"""The edge server: gRPC around a :class:`~splitinfer.runtime.tails.TailRunner`.

Requests arrive and leave as bytes. What gRPC would deserialize before the handler could not be refused by the handler,
and protobuf's own classes copy the payload at every step.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import TracebackType
from typing import Any, NoReturn

import grpc

from splitinfer.errors import InputError, RemoteError
from splitinfer.graph import SplitModel
from splitinfer.runtime.admission import OpenCalls
from splitinfer.runtime.ahead import read_ahead
from splitinfer.runtime.arguments import checked_settings, checked_split
from splitinfer.runtime.description import describe
from splitinfer.runtime.door import Door
from splitinfer.runtime.events import Observer, nobody
from splitinfer.runtime.malloc import tune_allocator
from splitinfer.runtime.settings import ServerSettings
from splitinfer.runtime.statuses import RETRY_AFTER, refusal
from splitinfer.runtime.tails import RefusedRequestError, TailRunner
from splitinfer.runtime.tracing import Tracing
from splitinfer.runtime.transport import SENDER, SERVICE, WINDOW, listen, server_options
from splitinfer.runtime.watchers import Watchers
from splitinfer.wire import is_piece, whole_message

logger = logging.getLogger(__name__)

_SPARE_THREADS = 16
"""Threads beyond the places for calls, for those that are just being refused or closed."""

_LEAST_WATCHERS = 32
"""Places for descriptions, health and reflection, however few there are for calls."""

_MAX_SENDER = 64

_SPARE_CALLS = 256
"""Calls beyond twice the places that gRPC queues for a thread before it refuses them by itself."""


class EdgeServer:
    """Serves the tails of models. A context manager that starts and stops it.

    Attributes:
        settings: as given.
        address: ``host:port`` that it listens on, once started.
        models: names of the models.
    """

    def __init__(
        self,
        models: Iterable[SplitModel],
        settings: ServerSettings | None = None,
        *,
        observer: Observer = nobody,
        pictures: Mapping[str, Callable[[Any], tuple[Any, ...]]] | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """Prepare a server; nothing listens before :meth:`start`.

        Args:
            models: whose tails it serves.
            settings: how it listens and works.
            observer: told of each request that was answered or refused, on the request's own thread; give a ``Fanout``
                where that may take long.
            pictures: by model, what makes its inputs from a picture sent at cut 0 (``models.sent_pictures``): an array
                of uint8, a file's bytes (n,) or pixels (height, width, 3).
            tracing: writes a span of each request that carries its sender's.

        Raises:
            InputError: no model, or two of one name.
        """
        if not hasattr(models, "__iter__"):
            raise InputError(f"models must be a list of SplitModel, not {type(models).__name__}")
        models = [checked_split(split) for split in models]
        self.settings = checked_settings(settings, ServerSettings)
        self._runner = TailRunner(
            models,
            self.settings.wire,
            tails_at_once=self.settings.tails_at_once,
            torch_threads=self.settings.torch_threads,
            batch=self.settings.batch,
            max_wait_s=self.settings.max_wait_s,
            kept_bytes=self.settings.kept_answer_bytes,
            keep_s=self.settings.kept_answer_s,
            observer=observer,
            pictures=pictures,
            tracing=tracing,
        )
        self.models = tuple(self._runner.models)
        self.address = ""
        self._door = Door(self.settings.security)
        self._calls = OpenCalls(self.settings.max_calls, self.settings.idle_s, self.settings.most_calls_of_one)
        self._watchers = Watchers((SERVICE,), max(_LEAST_WATCHERS, self.settings.max_calls), self.settings.idle_s)
        self._server: grpc.Server | None = None
        self._stopping = threading.Event()

    def start(self) -> None:
        """Listen and answer.

        Raises:
            InputError: the address cannot be listened on.
        """
        settings = self.settings
        if settings.allocator_tuning:
            tune_allocator()
        server = grpc.server(
            # More threads than places: calls that give up their place, or find none, need one for a moment.
            ThreadPoolExecutor(settings.max_calls + _SPARE_THREADS, thread_name_prefix="splitinfer-call"),
            options=server_options(settings),
            interceptors=self._door.interceptors,
            maximum_concurrent_rpcs=2 * settings.max_calls + _SPARE_CALLS,
        )
        methods = {
            "Describe": self._watchers.with_place(grpc.unary_unary_rpc_method_handler(self._describe)),
            # As a stream of one request, so that a call whose request never comes can be told from one at work.
            "Infer": grpc.stream_unary_rpc_method_handler(self._infer),
            "InferStream": grpc.stream_stream_rpc_method_handler(self._infer_stream),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        self._watchers.add_to(server)
        self.address = listen(server, settings)
        server.start()
        self._server = server
        self._watchers.say(well=True)
        self._watchdog = threading.Thread(target=self._watch, name="splitinfer-watchdog", daemon=True)
        self._watchdog.start()

    @property
    def waiting(self) -> int:
        """Requests that wait for a processor."""
        return self._runner.waiting

    @property
    def open_calls(self) -> int:
        """Calls and streams that are open."""
        return len(self._calls)

    def warm_batches(self) -> None:
        """Find out now which tails run in batches of which sizes, rather than once requests for each have queued."""
        self._runner.warm_batches()

    def stop(self) -> None:
        """Refuse new calls, let those under way finish within ``drain_s``, and stop."""
        if self._server is None:
            return
        self._stopping.set()
        self._watchers.stopping()
        stopped = self._server.stop(self.settings.drain_s)
        self._calls.drain()
        self._watchers.drain()
        stopped.wait()
        self._watchdog.join()
        self._runner.close()
        self._server = None

    def __enter__(self) -> EdgeServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _watch(self) -> None:
        """Say that the edge is not well while a tail does not end, and that it is when it does."""
        limit_s = self.settings.stuck_s
        well = True
        while not self._stopping.wait(min(1.0, limit_s / 4)):
            stuck_s = self._runner.stuck_s()
            if (stuck_s <= limit_s) is not well:
                well = not well
                logger.warning("tails run again" if well else f"a tail has not ended for {stuck_s:.1f} s")
                self._watchers.say(well=well)

    def _abort(self, context: grpc.ServicerContext, error: Exception) -> NoReturn:
        code, message = (error.code, error.message) if isinstance(error, RefusedRequestError) else refusal(error)
        hint_s = self._retry_after_s(error)
        if hint_s:
            context.set_trailing_metadata(((RETRY_AFTER, str(int(hint_s * 1e3))),))
        context.abort(code, message)
        raise AssertionError("abort() never returns")

    def _retry_after_s(self, error: Exception) -> float:
        """Return when a client that is refused for want of a place or a processor may ask again; 0 if it is not so."""
        reason = error.reason if isinstance(error, RefusedRequestError) else error
        if not isinstance(reason, RemoteError) or reason.status != grpc.StatusCode.RESOURCE_EXHAUSTED.name:
            return 0.0
        settings = self.settings
        return max(settings.retry_after_s, min(self._runner.backlog_s / 2, settings.longest_retry_after_s))

    def _describe(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return describe(data, self._runner.models, self.settings.wire)
        except Exception as error:  # noqa: BLE001 - the boundary; refusal() logs what is not meant for the client
            self._abort(context, error)

    def _infer(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        try:
            name = self._door.identity(context)
            with self._calls.opened(context, name) as call:
                data = next(requests, b"")
                if is_piece(data):
                    raise InputError("a request in pieces has to come in a stream")
                if not call.begin():
                    raise RemoteError("this edge is stopping", status=grpc.StatusCode.UNAVAILABLE.name)
                return self._runner.answer(data, is_wanted=context.is_active, sender=_sender(context, name))
        except Exception as error:  # noqa: BLE001 - the boundary; refusal() logs what is not meant for the client
            self._abort(context, error)

    def _infer_stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        try:
            name = self._door.identity(context)
            stream = self._calls.opened(context, name)
        except RemoteError as error:
            self._abort(context, error)
        sender = _sender(context, name)
        with stream, read_ahead(requests) if _has_window(context) else nullcontext(requests) as messages:
            passes_over = False
            for message in messages:
                if passes_over and is_piece(message, of_one_begun=True):
                    continue  # the rest of a message that was refused
                passes_over = False
                data: bytes | memoryview | None = message
                try:
                    if is_piece(message):
                        passes_over = True
                        data = whole_message(message, map(stream.heard, messages), self.settings.limits)
                        passes_over = False
                    if data is None or not stream.begin():
                        return
                    reply = self._runner.answer(data, is_wanted=context.is_active, sender=sender)
                except Exception as error:  # noqa: BLE001 - the boundary; refusal() logs what is not meant for the client
                    refused = error
                    if not isinstance(refused, RefusedRequestError):  # of pieces that make no message
                        refused = self._runner.refused(0, error, sender)
                    hint_s = self._retry_after_s(refused)
                    reply = self._runner.refuse(refused.request_id, refused.code.value[0], refused.message, hint_s)
                data = message = b""  # a stream that waits for its client holds no message, which may be of 64 MiB
                yield reply
                del reply
                if not stream.end():
                    return


def _has_window(context: grpc.ServicerContext) -> bool:
    """Whether a stream's client sends requests before the last is answered."""
    return any(key == WINDOW and value not in ("0", "1") for key, value in context.invocation_metadata())


def _sender(context: grpc.ServicerContext, name: str) -> tuple[str, str] | None:
    """Return whose ids a call's requests have: another name's are others. None where a call does not say."""
    for key, value in context.invocation_metadata():
        if key == SENDER and isinstance(value, str) and len(value) <= _MAX_SENDER:
            return name, value
    return None
