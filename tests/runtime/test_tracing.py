"""OpenTelemetry: what a device and an edge write about one request belongs together."""

from __future__ import annotations

import asyncio
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
import torch
from opentelemetry.context import Context
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

from splitinfer.errors import InputError, MissingExtraError, RemoteError
from splitinfer.graph import SplitModel
from splitinfer.runtime import AsyncEdgeClient, ClientSettings, EdgeClient, EdgeServer, ModelId, tracing
from splitinfer.runtime.tracing import Tracing, tracing_to

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
IMAGE = torch.ones(1, 3, 32, 32)


class Recorder:
    """A provider that keeps what is written."""

    def __init__(self) -> None:
        self.provider = TracerProvider()
        self.memory = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self.memory))
        self.tracing = Tracing(self.provider)

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.memory.get_finished_spans() if span.name == f"splitinfer.{name}"]

    def stages(self, parent: ReadableSpan) -> dict[str, float]:
        """Return the seconds of the spans below one, each inside it and after the one before."""
        at, out = parent.start_time, {}
        for span in self.memory.get_finished_spans():
            if span.parent is not None and span.parent.span_id == parent.context.span_id and not span.parent.is_remote:
                assert at - 1000 <= span.start_time <= span.end_time
                at = span.end_time
                out[span.name.removeprefix("splitinfer.")] = (span.end_time - span.start_time) * 1e-9
        return out


class Begun(SpanProcessor):
    """Notes the names of spans that begin."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self.names.append(span.name)


def test_device_and_edge_share_one_trace(models: dict[str, SplitModel]) -> None:
    split, device, edge = models["plain"], Recorder(), Recorder()
    with EdgeServer([split], tracing=edge.tracing) as server:
        for settings in (ClientSettings(), ClientSettings(stream_up_to_bytes=0)):  # the open stream; calls of their own
            with EdgeClient(server.address, settings, tracing=device.tracing) as client:
                results = [client.infer(split, 1, IMAGE) for _ in range(2)]
                results += client.stream(split, 1, [IMAGE] * 2)

        async def ask() -> None:
            async with AsyncEdgeClient(server.address, tracing=device.tracing) as client:
                results.append(await client.infer(split, 1, IMAGE))

        asyncio.run(ask())
    roots, served = device.spans("infer"), edge.spans("serve")
    assert len(roots) == len(served) == 9
    assert len({root.context.trace_id for root in roots}) == 9
    of_edge = {span.context.trace_id: span for span in served}
    for root in roots:
        span = of_edge[root.context.trace_id]
        assert span.parent is not None
        assert span.parent.is_remote
        assert span.parent.span_id == root.context.span_id
        assert root.attributes == {
            "splitinfer.model": "plain",
            "splitinfer.cut": 1,
            "splitinfer.ran_at": "edge",
            "splitinfer.retries": 0,
        }
        assert list(device.stages(root)) == ["head", "encode", "send", "decode"]
        assert list(edge.stages(span)) == ["queue", "tail", "reply"]
    last = edge.stages(of_edge[roots[-1].context.trace_id])
    assert last["tail"] == pytest.approx(results[-1].timing.tail_s, abs=1e-5)


def test_every_span_of_a_stream_that_raises_is_ended(models: dict[str, SplitModel]) -> None:
    split, device = models["plain"], Recorder()
    begun = Begun()
    device.provider.add_span_processor(begun)
    with EdgeServer([split]) as server, EdgeClient(server.address, tracing=device.tracing) as client:
        wrong = client.stream(split, 1, [IMAGE, IMAGE, torch.ones(7)], window=3)
        with pytest.raises(InputError):
            list(wrong)
        left = client.stream(split, 1, [IMAGE] * 5, window=3)
        next(left)
        left.close()
        line = client.stream(split, 1, [IMAGE] * 3, window=1)
        next(line)  # the others are not sent before it was taken, however quick the edge is
        server.stop()
        with pytest.raises(RemoteError):
            list(line)
    assert len(device.spans("infer")) == begun.names.count("splitinfer.infer")
    assert any(root.status.status_code is StatusCode.ERROR for root in device.spans("infer"))


@pytest.mark.parametrize("jump_s", [-3600, 3600])
def test_a_span_is_as_long_as_its_task_when_the_clock_is_set(
    models: dict[str, SplitModel], monkeypatch: pytest.MonkeyPatch, jump_s: int
) -> None:
    split, device = models["plain"], Recorder()
    now = tracing.time.time_ns
    shifts = iter([0])  # the first look at the clock is the last right one
    clock = SimpleNamespace(
        time_ns=lambda: now() + next(shifts, jump_s) * 10**9, perf_counter=tracing.time.perf_counter
    )
    monkeypatch.setattr(tracing, "time", clock)
    with EdgeServer([split]) as server, EdgeClient(server.address, tracing=device.tracing) as client:
        client.infer(split, 1, IMAGE)
    (root,) = device.spans("infer")
    assert 0 < root.end_time - root.start_time < 60 * 10**9
    assert sum(device.stages(root).values()) <= (root.end_time - root.start_time) * 1e-9 + 1e-5


def test_a_trace_joins_the_callers_own(models: dict[str, SplitModel]) -> None:
    split, both = models["plain"], Recorder()
    tracer = both.provider.get_tracer("an application")
    with (
        EdgeServer([split], tracing=both.tracing) as server,
        EdgeClient(server.address, tracing=both.tracing) as client,
    ):
        with tracer.start_as_current_span("frame") as frame:
            client.infer(split, 1, IMAGE)
        client.infer(split, 1, IMAGE)
    inside, outside = both.spans("infer")
    assert inside.parent is not None
    assert inside.parent.span_id == frame.get_span_context().span_id
    assert {span.context.trace_id for span in both.spans("tail")} == {inside.context.trace_id, outside.context.trace_id}


def test_failures_are_said(models: dict[str, SplitModel]) -> None:
    split, both = models["plain"], Recorder()
    with (
        EdgeServer([split], tracing=both.tracing) as server,
        EdgeClient(server.address, tracing=both.tracing) as client,
        pytest.raises(RemoteError),
    ):
        client.run_tail(ModelId("plain", split.fingerprint), 99, [IMAGE])
    (root,), (served,) = both.spans("infer"), both.spans("serve")
    assert root.status.status_code is served.status.status_code is StatusCode.ERROR
    assert root.context.trace_id == served.context.trace_id
    gone = ClientSettings(retries=1, breaker_failures=9)
    with EdgeClient("127.0.0.1:1", gone, on_failure="fallback", tracing=both.tracing) as client:
        client.infer(split, 1, IMAGE)
    here = both.spans("infer")[-1]
    assert here.attributes is not None
    assert (here.attributes["splitinfer.ran_at"], here.attributes["splitinfer.retries"]) == ("device", 1)
    assert list(both.stages(here)) == ["head", "encode", "send", "tail"]


def test_an_unsampled_request_stays_so_at_the_edge(models: dict[str, SplitModel]) -> None:
    split, edge = models["plain"], Recorder()
    with EdgeServer([split], tracing=edge.tracing) as server:
        with EdgeClient(server.address, tracing=Tracing(TracerProvider(sampler=ALWAYS_OFF))) as client:
            client.infer(split, 1, IMAGE)
        with EdgeClient(server.address) as client:  # whose requests carry nothing
            client.infer(split, 1, IMAGE)
    assert edge.memory.get_finished_spans() == ()


def test_the_documented_spans_are_the_spans(models: dict[str, SplitModel]) -> None:
    split, both = models["plain"], Recorder()
    with (
        EdgeServer([split], tracing=both.tracing) as server,
        EdgeClient(server.address, tracing=both.tracing) as client,
    ):
        client.infer(split, 1, IMAGE)
    both.tracing.task("plain", 1, device=0, service=0, number=1, slot=0).answered("edge", is_right=True)
    documented = re.findall(r"^\| `(splitinfer\.\w+)` \| (?:device|edge|both) \|", DOCS.read_text(), re.M)
    assert {span.name for span in both.memory.get_finished_spans()} == set(documented)


def test_spans_reach_a_collector(models: dict[str, SplitModel]) -> None:
    split, received = models["plain"], []

    def export(request: ExportTraceServiceRequest, context: grpc.ServicerContext) -> ExportTraceServiceResponse:
        received.extend(request.resource_spans)
        return ExportTraceServiceResponse()

    collector = grpc.server(ThreadPoolExecutor(1))
    take = grpc.unary_unary_rpc_method_handler(
        export, ExportTraceServiceRequest.FromString, ExportTraceServiceResponse.SerializeToString
    )
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    collector.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": take}),))
    endpoint = f"http://127.0.0.1:{collector.add_insecure_port('127.0.0.1:0')}"
    collector.start()
    try:
        with (
            tracing_to(endpoint, "an edge") as edge,
            EdgeServer([split], tracing=edge) as server,
            tracing_to(endpoint, "a device") as device,
            EdgeClient(server.address, tracing=device) as client,
        ):
            client.infer(split, 1, IMAGE)
    finally:
        collector.stop(None).wait()
    traces = {}
    for resource in received:
        (name,) = (pair.value.string_value for pair in resource.resource.attributes if pair.key == "service.name")
        traces[name] = {span.trace_id for scope in resource.scope_spans for span in scope.spans}
    assert set(traces) == {"an edge", "a device"}
    assert traces["an edge"] == traces["a device"]
    assert len(traces["an edge"]) == 1


def test_what_is_missing_or_wrong_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for endpoint in ("localhost:4317", "http://", "http://host", "ftp://host:1"):
        with pytest.raises(InputError, match="--otlp"), tracing_to(endpoint, "splitinfer"):
            pass
    with tracing_to(None, "splitinfer") as tracing:
        assert tracing is None
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(MissingExtraError, match=r"splitinfer\[otel\]"), tracing_to("http://127.0.0.1:1", "splitinfer"):
        pass
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(MissingExtraError, match=r"splitinfer\[otel\]"):
        Tracing()
