"""What an edge is asked beside inference, behind places of its own: its health, its methods, what it holds.

As gRPC serves these, a call whose request never arrives holds a thread for ever, an open ``Watch`` or reflection stream
counts against gRPC's limit of calls, and a ``Watch`` of a service that there is not is remembered after its end.
A few hundred of them would keep every client out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from splitinfer.errors import RemoteError
from splitinfer.runtime.admission import OpenCall, OpenCalls

_SPARE_THREADS = 8


class Watchers:
    """The health of a server, and what it says of its methods.

    Args:
        services: names that are told, and whose health is.
        places: calls of this kind at a time. Apart from those of inference, so that whoever watches over an edge is
            answered however busy it is, and a client that comes takes no other's place.
        silence_s: longest time that a call may wait for its peer's message, seconds.
    """

    def __init__(self, services: tuple[str, ...], places: int, silence_s: float) -> None:
        self._services = services
        self._calls = OpenCalls(places, silence_s)
        self._threads = ThreadPoolExecutor(places + _SPARE_THREADS, "splitinfer-health")
        self._health = _Health(services)

    def add_to(self, server: grpc.Server) -> None:
        """Have a server answer for both."""
        guarded: Any = _Guarded(server, self.with_place)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, guarded)
        names = (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, guarded)

    def say(self, *, well: bool) -> None:
        """Note how the server is."""
        status = health_pb2.HealthCheckResponse.SERVING if well else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", *self._services):
            self._health.set(service, status)

    def stopping(self) -> None:
        """Say for good that the server is not well."""
        self._health.enter_graceful_shutdown()

    def drain(self) -> None:
        """Close the calls that wait for their peers."""
        self._calls.drain()
        self._threads.shutdown(wait=False)

    def with_place(self, method: Any) -> Any:
        """Return a method that takes its messages one by one, and holds a place for as long as it is open."""

        def heard(requests: Iterator[Any], call: OpenCall) -> Iterator[Any]:
            for request in requests:
                if not call.begin():
                    return
                yield request
                if not call.end():
                    return

        def answer(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                place = self._calls.opened(context)
            except RemoteError as error:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
            with place as call:
                if method.request_streaming:
                    yield from method.stream_stream(heard(requests, call), context)
                    return
                for request in requests:
                    if method.response_streaming:  # a Watch is silent until something changes
                        yield from method.unary_stream(request, context)
                    else:
                        yield method.unary_unary(request, context)
                    return

        answer.experimental_thread_pool = self._threads  # type: ignore[attr-defined]  # gRPC looks for it here
        return grpc.stream_stream_rpc_method_handler(answer, method.request_deserializer, method.response_serializer)


class _Health(health.HealthServicer):  # type: ignore[misc]
    """Remembers nobody who watches over a service that there is not."""

    def __init__(self, services: tuple[str, ...]) -> None:
        super().__init__(experimental_non_blocking=False)
        self._known = ("", *services)

    def Watch(self, request: Any, context: Any, send_response_callback: Any = None) -> Any:  # noqa: N802 - gRPC's name
        if request.service not in self._known:
            return iter([health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)])
        return super().Watch(request, context, send_response_callback)


class _Guarded:
    """Stands for a server where services add themselves to it."""

    def __init__(self, server: grpc.Server, with_place: Callable[[Any], Any]) -> None:
        self._server = server
        self._with_place = with_place

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        self._server.add_generic_rpc_handlers(tuple(_Methods(one, self._with_place) for one in handlers))

    def add_registered_method_handlers(self, service: str, methods: Any) -> None:
        """The same methods once more, for a quicker look-up."""


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, inner: grpc.GenericRpcHandler, with_place: Callable[[Any], Any]) -> None:
        self._inner = inner
        self._with_place = with_place

    def service(self, call: grpc.HandlerCallDetails) -> Any:
        method = self._inner.service(call)
        return None if method is None else self._with_place(method)
