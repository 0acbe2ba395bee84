"""OpenTelemetry spans of requests, at a device and at the edge, in one trace. ``docs/metrics.md`` lists them.

A request carries the context of its span among the few bytes of its header that change anyway, so that it goes the same
way with it as without, an open stream included. Stages are measured in any case; their spans are written from these
times once a request is done. Without tracing nothing here runs, and OpenTelemetry is not imported.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from splitinfer.errors import InputError, MissingExtraError
from splitinfer.wire.messages import TRACE_BYTES

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

    from splitinfer.runtime.result import InferenceResult

_NS = 1e9
FLUSH_S = 2.0


class RequestTrace:
    """The trace of one request at its device. This one keeps nothing."""

    context = b""

    def done(self, result: InferenceResult) -> None:
        """Note the result: its stages, and where its tail ran."""

    def failed(self, error: BaseException) -> None:
        """Note that there is none."""

    def stage(self, name: str, took_s: float) -> None:
        """Note a stage that has just ended, of a live run's task."""

    def answered(self, ran_at: str, *, is_right: bool) -> None:
        """Note that a live run's task has its answer."""


UNTRACED = RequestTrace()


class Tracing:
    """Writes spans. Give it to ``EdgeClient``, ``AsyncEdgeClient`` or ``EdgeServer``; safe to use from several threads.

    Args:
        provider: where spans go, sampled as it says; the program's own by default (``opentelemetry.trace``).

    Raises:
        MissingExtraError: OpenTelemetry is not installed.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        try:
            from opentelemetry import trace
        except ImportError as error:
            raise MissingExtraError("opentelemetry", "otel") from error
        self._trace = trace
        self._tracer = trace.get_tracer("splitinfer", tracer_provider=provider)
        self._provider = provider

    def begin(self, model: str, cut: int, head_s: float) -> RequestTrace:
        """Begin the span of a request whose head has just run, below the caller's own span if there is one."""
        started = time.time_ns() - int(head_s * _NS)
        span = self._tracer.start_span(
            "splitinfer.infer",
            kind=self._trace.SpanKind.CLIENT,
            start_time=started,
            attributes={"splitinfer.model": model, "splitinfer.cut": cut},
        )
        return _Traced(self, span, started, time.perf_counter() - head_s)

    def task(self, model: str, cut: int, *, device: int, service: int, number: int, slot: int) -> RequestTrace:
        """Begin the span of a live run's task, which came in a slot and has its number at the device."""
        attributes: dict[str, str | int] = {
            "model": model,
            "cut": cut,
            "device": device,
            "service": service,
            "task": number,
            "slot": slot,
        }
        started = time.time_ns()
        span = self._tracer.start_span(
            "splitinfer.task",
            kind=self._trace.SpanKind.CLIENT,
            start_time=started,
            attributes={f"splitinfer.{name}": value for name, value in attributes.items()},
        )
        return _Traced(self, span, started, time.perf_counter())

    def flush(self) -> None:
        """Send what is waiting to be sent, in ``FLUSH_S`` at most."""
        if self._provider is not None and hasattr(self._provider, "force_flush"):
            self._provider.force_flush(int(FLUSH_S * 1e3))

    def shutdown(self) -> None:
        """Send what is waiting to be sent, and write no more."""
        if self._provider is not None and hasattr(self._provider, "shutdown"):
            self._provider.shutdown()

    def served(
        self,
        context: bytes,
        attributes: dict[str, Any],
        *,
        server_s: float,
        queue_s: float = 0.0,
        tail_s: float = 0.0,
        since_s: float,
        refused: str = "",
    ) -> None:
        """Write the spans of a request at the edge.

        Args:
            context: that the request carries.
            attributes: of the span.
            server_s: from the request's bytes to the output, seconds; queue and tail are its end.
            queue_s, tail_s: of these, waiting and computing, seconds.
            since_s: ``time.perf_counter()`` when the request's bytes were there.
            refused: why there is no answer.
        """
        ended = time.time_ns()
        started = ended - int((time.perf_counter() - since_s) * _NS)
        parent = self._trace.set_span_in_context(self._trace.NonRecordingSpan(self._remote(context)))
        span = self._tracer.start_span(
            "splitinfer.serve",
            context=parent,
            kind=self._trace.SpanKind.SERVER,
            start_time=started,
            attributes=attributes,
        )
        if refused:
            span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, refused))
        else:
            turn = started + int((server_s - queue_s - tail_s) * _NS)
            self.stages(span, turn, queue=queue_s, tail=tail_s)
            output = turn + int((queue_s + tail_s) * _NS)
            self.stages(span, output, reply=(ended - output) / _NS)
        span.end(ended)

    def stages(self, parent: Span, started: int, **seconds: float) -> None:
        """Write spans one after the other below another, from a time in nanoseconds on."""
        context = self._trace.set_span_in_context(parent)
        for name, length_s in seconds.items():
            stage = self._tracer.start_span(f"splitinfer.{name}", context=context, start_time=started)
            started += int(length_s * _NS)
            stage.end(started)

    def error(self, text: str) -> Any:
        """Return the status of a span that failed."""
        return self._trace.Status(self._trace.StatusCode.ERROR, text)

    def _remote(self, context: bytes) -> Any:
        return self._trace.SpanContext(
            int.from_bytes(context[:16]),
            int.from_bytes(context[16:24]),
            is_remote=True,
            trace_flags=self._trace.TraceFlags(context[24]),
        )


class _Traced(RequestTrace):
    def __init__(self, tracing: Tracing, span: Span, started: int, since_s: float) -> None:
        self._tracing = tracing
        self._span = span
        self._started = started
        self._since_s = since_s
        self._is_over = False
        of = span.get_span_context()
        self.context = of.trace_id.to_bytes(16) + of.span_id.to_bytes(8) + bytes((of.trace_flags,))
        assert len(self.context) == TRACE_BYTES

    def done(self, result: InferenceResult) -> None:
        if self._is_over:
            return
        took = result.timing
        self._span.set_attributes({"splitinfer.ran_at": result.ran_at, "splitinfer.retries": result.retries})
        if result.error is not None:
            self._span.set_status(self._tracing.error(str(result.error)))
        if self._span.is_recording():
            at_edge = took.queue_s + took.tail_s if result.ran_at == "edge" else 0.0
            seconds = {"head": took.head_s, "encode": took.encode_s, "send": took.wire_s + at_edge}
            seconds |= {"tail": took.tail_s} if result.ran_at == "device" else {"decode": took.decode_s}
            self._tracing.stages(self._span, self._started, **seconds)
        self._end()

    def failed(self, error: BaseException) -> None:
        if not self._is_over:
            self._span.set_status(self._tracing.error(str(error) or type(error).__name__))
            self._end()

    def stage(self, name: str, took_s: float) -> None:
        if not self._is_over and self._span.is_recording():
            self._tracing.stages(self._span, self._now() - int(took_s * _NS), **{name: took_s})

    def answered(self, ran_at: str, *, is_right: bool) -> None:
        self._span.set_attribute("splitinfer.ran_at", ran_at)
        if not is_right:
            self._span.set_status(self._tracing.error("the answer is not the whole model's"))
        self._end()

    def _end(self) -> None:
        self._is_over = True
        self._span.end(self._now())

    def _now(self) -> int:
        # As long after the start as it took, also where the wall clock was set meanwhile.
        return self._started + int((time.perf_counter() - self._since_s) * _NS)


@contextmanager
def tracing_to(endpoint: str | None, service: str) -> Iterator[Tracing | None]:
    """Send spans to an OTLP collector over gRPC while inside; None without an endpoint.

    Args:
        endpoint: ``http://host:4317``, or ``https://`` for TLS. OpenTelemetry's own variables (``OTEL_*``) hold too.
        service: what the spans' ``service.name`` is.

    Raises:
        InputError: that is no such endpoint.
        MissingExtraError: OpenTelemetry is not installed.
    """
    tracing = tracing_of_child(endpoint, service)
    try:
        yield tracing
    finally:
        if tracing is not None:
            tracing.shutdown()


def check_endpoint(endpoint: str | None) -> None:
    """Refuse what is no collector's address, and spans without OpenTelemetry.

    Raises:
        InputError, MissingExtraError: as ``tracing_to``.
    """
    if endpoint is None:
        return
    scheme, separator, rest = endpoint.partition("://")
    if scheme not in ("http", "https") or not separator or not rest.rpartition(":")[2].rstrip("/").isdigit():
        raise InputError(f"--otlp: a collector is http://HOST:PORT or https://HOST:PORT, not {endpoint!r}")
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: F401 - is it there
        from opentelemetry.sdk.trace import TracerProvider  # noqa: F401 - and this
    except ImportError as error:
        raise MissingExtraError("opentelemetry", "otel") from error


def tracing_of_child(endpoint: str | None, service: str) -> Tracing | None:
    """As ``tracing_to``, for a process that ends from another thread: it calls ``flush`` before."""
    check_endpoint(endpoint)
    if endpoint is None:
        return None
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    exporter = OTLPSpanExporter(endpoint, insecure=endpoint.startswith("http:"))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider)
