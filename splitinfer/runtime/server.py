"""The edge server: gRPC around a :class:`~splitinfer.runtime.tails.TailRunner`.

Requests arrive and leave as bytes. What gRPC would deserialize before the handler could not be refused by the handler,
and protobuf's own classes copy the payload at every step.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import NoReturn

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from splitinfer.errors import InputError
from splitinfer.graph import SplitModel
from splitinfer.runtime.allocator import tune_allocator
from splitinfer.runtime.channel import SERVICE, server_options
from splitinfer.runtime.description import describe
from splitinfer.runtime.settings import ServerSettings
from splitinfer.runtime.statuses import refusal
from splitinfer.runtime.tails import RefusedRequestError, TailRunner


class EdgeServer:
    """Serves the tails of models. A context manager that starts and stops it.

    Attributes:
        settings: as given.
        address: ``host:port`` that it listens on, once started.
        models: names of the models.
    """

    def __init__(self, models: Iterable[SplitModel], settings: ServerSettings | None = None) -> None:
        """Prepare a server; nothing listens before :meth:`start`.

        Raises:
            InputError: no model, or two of one name.
        """
        self.settings = settings or ServerSettings()
        self._runner = TailRunner(
            models,
            self.settings.wire,
            tails_at_once=self.settings.tails_at_once,
            torch_threads=self.settings.torch_threads,
        )
        self.models = tuple(self._runner.models)
        self.address = ""
        self._streams = _OpenStreams()
        self._health = health.HealthServicer()
        self._server: grpc.Server | None = None

    def start(self) -> None:
        """Listen and answer.

        Raises:
            InputError: the address cannot be listened on.
        """
        settings = self.settings
        if settings.allocator_tuning:
            tune_allocator()
        server = grpc.server(
            ThreadPoolExecutor(settings.max_calls, thread_name_prefix="splitinfer-call"),
            options=server_options(settings),
            maximum_concurrent_rpcs=settings.max_calls,
        )
        methods = {
            "Describe": grpc.unary_unary_rpc_method_handler(self._describe),
            "Infer": grpc.unary_unary_rpc_method_handler(self._infer),
            "InferStream": grpc.stream_stream_rpc_method_handler(self._infer_stream),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        host = settings.host
        bracketed = f"[{host}]" if ":" in host and not host.startswith("[") else host
        try:
            port = server.add_insecure_port(f"{bracketed}:{settings.port}")
        except RuntimeError:
            port = 0
        if not port:
            raise InputError(f"cannot listen on {bracketed}:{settings.port}: in use, not allowed, or no such address")
        self.address = f"{bracketed}:{port}"
        server.start()
        self._server = server
        for service in ("", SERVICE):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    def stop(self) -> None:
        """Refuse new calls, let those under way finish within ``drain_s``, and stop."""
        if self._server is None:
            return
        self._health.enter_graceful_shutdown()
        stopped = self._server.stop(self.settings.drain_s)
        self._streams.drain()
        stopped.wait()
        self._server = None

    def __enter__(self) -> EdgeServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _describe(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return describe(data, self._runner.models, self.settings.wire)
        except Exception as error:  # noqa: BLE001 - the boundary; refusal() logs what is not meant for the client
            _abort(context, error)

    def _infer(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return self._runner.answer(data, is_wanted=context.is_active)
        except Exception as error:  # noqa: BLE001 - the boundary; refusal() logs what is not meant for the client
            _abort(context, error)

    def _infer_stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        with self._streams.opened(context) as stream:
            for data in requests:
                if not stream.begin():
                    return
                yield self._stream_reply(data, context)
                if not stream.end():
                    return

    def _stream_reply(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return self._runner.answer(data, is_wanted=context.is_active)
        except RefusedRequestError as refused:
            code, message = refusal(refused.reason)
            return self._runner.refuse(refused.request_id, code.value[0], message)


def _reason(error: Exception) -> Exception:
    return error.reason if isinstance(error, RefusedRequestError) else error


def _abort(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    context.abort(*refusal(_reason(error)))
    raise AssertionError("abort() never returns")


class _OpenStreams:
    """The streams that are open, so that a stopping server can close the idle ones and let busy ones finish."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[_OpenStream] = set()
        self._draining = False

    def opened(self, context: grpc.ServicerContext) -> _OpenStream:
        return _OpenStream(self, context)

    def drain(self) -> None:
        with self._lock:
            self._draining = True
            idle = [stream for stream in self._open if not stream.busy]
        for stream in idle:
            stream.context.cancel()

    def add(self, stream: _OpenStream) -> None:
        with self._lock:
            self._open.add(stream)

    def remove(self, stream: _OpenStream) -> None:
        with self._lock:
            self._open.discard(stream)

    def mark(self, stream: _OpenStream, *, busy: bool) -> bool:
        """Note whether a request is being answered; False when the stream should close now."""
        with self._lock:
            stream.busy = busy
            return not self._draining


class _OpenStream:
    def __init__(self, streams: _OpenStreams, context: grpc.ServicerContext) -> None:
        self.context = context
        self.busy = False
        self._streams = streams

    def begin(self) -> bool:
        return self._streams.mark(self, busy=True)

    def end(self) -> bool:
        return self._streams.mark(self, busy=False)

    def __enter__(self) -> _OpenStream:
        self._streams.add(self)
        return self

    def __exit__(self, *exc: object) -> None:
        self._streams.remove(self)
