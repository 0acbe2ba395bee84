"""What an edge counts and times, for Prometheus. The names follow Triton's; ``docs/metrics.md`` lists them.

Names, labels and units are a contract: dashboards and alerts are built on them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from splitinfer.errors import InputError
from splitinfer.runtime.batch_sizes import SIZES
from splitinfer.runtime.events import (
    BatchReleased,
    DidAlone,
    Event,
    Inferred,
    PeriodEnded,
    Refused,
    Repeated,
    Started,
    TailServed,
    TaskDone,
)

if TYPE_CHECKING:
    from splitinfer.runtime.server import EdgeServer
    from splitinfer.runtime.settings import ServerSettings

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_STAGES = ("local", "transmission", "edge")


class Metrics:
    """Counts events. An observer for ``EdgeServer`` and live runs; safe to call from any thread.

    Attributes:
        registry: of the metrics, apart from every other of the process.
        address: URL that answers, empty where none does.
    """

    def __init__(self) -> None:
        self.address = ""
        self.registry = registry = CollectorRegistry()
        of_model, of_service = ("model",), ("device", "service")

        def counter(name: str, about: str, labels: tuple[str, ...]) -> Counter:
            return Counter(f"splitinfer_{name}", about, labels, registry=registry)

        def gauge(name: str, about: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"splitinfer_{name}", about, labels, registry=registry)

        def seconds(name: str, about: str, labels: tuple[str, ...]) -> Histogram:
            return Histogram(f"splitinfer_{name}_seconds", about, labels, buckets=_SECONDS, registry=registry)

        self._success = counter("inference_request_success", "Requests that were answered.", ("model", "cut"))
        self._failure = counter("inference_request_failure", "Requests that were refused, by status.", ("reason",))
        self._request_s = seconds("inference_request_duration", "From a request's bytes to the output.", of_model)
        self._queue_s = seconds("inference_queue_duration", "Waiting for a free processor.", of_model)
        self._compute_s = seconds("inference_compute_infer_duration", "Computing the tail.", of_model)
        self._up = counter("inference_request_bytes", "Bytes of requests that were answered.", of_model)
        self._down = counter("inference_reply_bytes", "Bytes of answers.", of_model)
        self._repeated = counter("inference_repeated", "Requests that came again, answered once.", of_model)
        self._fallback = counter("fallback", "Tails that a device ran because the edge did not.", of_model)
        self._retry = counter("retry", "Further tries of a client.", of_model)
        self._batch = Histogram(
            "splitinfer_inference_batch_size",
            "Requests that were computed together.",
            of_model,
            buckets=SIZES,
            registry=registry,
        )
        self._oldest_wait_s = seconds("inference_batch_oldest_wait", "Wait of the first of a batch.", of_model)
        self._released = counter("inference_batch_release", "Batches, by why they left.", ("model", "reason"))
        self._dropped = counter("inference_batch_dropped", "Requests that nobody waited for any more.", of_model)
        self._pending = gauge("inference_pending_request_count", "Requests that wait for a processor.")
        self._open = gauge("open_calls", "Calls and streams that are open.")
        self._places = gauge("max_calls", "Calls and streams that may be open at the same time.")
        self._task = counter("task_success", "Tasks of a live run that are finished.", of_service)
        self._task_fallback = counter("task_fallback", "Tasks of a live run that ended without the edge.", of_service)
        self._rejoin_retry = counter("rejoin_retry", "Times that a device asked to be taken back.", ("device",))
        self._latency = seconds("task_latency", "From a task's arrival to its end, in virtual time.", of_service)
        self._cut = gauge("cut", "Cut in force.", of_service)
        self._backlog = gauge(
            "queue_backlog", "Mean backlog of the last period: cycles, or bits of transmission.", (*of_service, "stage")
        )
        self._energy = counter("energy_joules", "Energy of a device, by the model.", ("device", "part"))
        self._power = gauge("transmit_power_watts", "Mean transmit power of the last period.", ("device",))
        self._slot_s = 0.0

    def add(self, event: Event) -> None:
        """Take note of an event."""
        if isinstance(event, TailServed):
            self._success.labels(event.model, event.cut).inc()
            self._request_s.labels(event.model).observe(event.server_s)
            self._queue_s.labels(event.model).observe(event.queue_s)
            self._compute_s.labels(event.model).observe(event.tail_s)
            self._up.labels(event.model).inc(event.bytes_up)
            self._down.labels(event.model).inc(event.bytes_down)
        elif isinstance(event, Refused):
            self._failure.labels(event.status).inc()
        elif isinstance(event, Repeated):
            self._repeated.labels(event.model).inc()
        elif isinstance(event, Inferred):
            self._fallback.labels(event.model).inc(event.ran_at == "device")
            self._retry.labels(event.model).inc(event.retries)
        elif isinstance(event, BatchReleased):
            self._batch.labels(event.model).observe(event.size)
            self._oldest_wait_s.labels(event.model).observe(event.oldest_wait_s)
            self._released.labels(event.model, event.reason).inc()
            self._dropped.labels(event.model).inc(event.dropped)
        elif isinstance(event, Started):
            self._slot_s = event.slot_s
            for device, services in enumerate(event.services):  # from 0, so that a rate sees the first one
                self._rejoin_retry.labels(device)
                for service in range(len(services)):
                    self._task_fallback.labels(device, service)
        elif isinstance(event, TaskDone):
            self._task.labels(event.device, event.service).inc()
            latency_s = (event.finish_slot + 1 - event.arrival_slot) * self._slot_s
            self._latency.labels(event.device, event.service).observe(latency_s)
        elif isinstance(event, PeriodEnded):
            self._add_period(event)
        elif isinstance(event, DidAlone):
            self._rejoin_retry.labels(event.device).inc(event.retries)
            for service, fallbacks in enumerate(event.fallbacks):
                self._task_fallback.labels(event.device, service).inc(fallbacks)

    def follow(self, server: EdgeServer) -> None:
        """Show the queues of a server, as they are whenever somebody asks."""
        self._pending.set_function(lambda: server.waiting)
        self._open.set_function(lambda: server.open_calls)
        self._places.set(server.settings.max_calls)

    def _add_period(self, event: PeriodEnded) -> None:
        for device, cuts in enumerate(event.cuts):
            self._energy.labels(device, "local").inc(event.local_energy_j[device] * event.slots)
            self._energy.labels(device, "transmission").inc(event.transmission_energy_j[device] * event.slots)
            self._power.labels(device).set(event.power_w[device])
            for service, cut in enumerate(cuts):
                self._cut.labels(device, service).set(cut)
                for stage, backlog in zip(_STAGES, event.backlog, strict=True):
                    self._backlog.labels(device, service, stage).set(backlog[device][service])


@contextmanager
def metrics_at(port: int | None, settings: ServerSettings) -> Iterator[Metrics | None]:
    """Answer ``GET /metrics`` in this block, on the edge's host; over TLS and to known certificates alone as it does.

    Tokens are not asked for: Prometheus scrapes with certificates or on a network of its own.

    Args:
        port: to listen on; 0 picks a free one, None makes no metrics.
        settings: of the edge.

    Raises:
        InputError: the port cannot be listened on.
    """
    if port is None:
        yield None
        return
    metrics, security = Metrics(), settings.security
    try:
        server, thread = start_http_server(
            port,
            settings.host.strip("[]"),
            registry=metrics.registry,
            certfile=security.tls_cert,
            keyfile=security.tls_key,
            client_cafile=security.client_ca,
            client_auth_required=security.client_ca is not None,
        )
    except OSError as error:
        raise InputError(f"--metrics-port: cannot listen on {settings.host}:{port}: {error.strerror}") from None
    metrics.address = f"{'https' if security.is_encrypted else 'http'}://{settings.host}:{server.server_port}/metrics"
    try:
        yield metrics
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
