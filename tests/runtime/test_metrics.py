"""The names, labels and values that Prometheus gets, over HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import urllib.request
from pathlib import Path

import grpc
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from splitinfer.errors import InputError, RemoteError
from splitinfer.graph import SplitModel
from splitinfer.runtime import AsyncEdgeClient, ClientSettings, EdgeClient, EdgeServer, ModelId, ServerSettings
from splitinfer.runtime.events import DidAlone, PeriodEnded, Started, TaskDone
from splitinfer.runtime.logs import log_event, log_to_stderr
from splitinfer.runtime.metrics import Metrics, metrics_at
from splitinfer.runtime.security import ClientSecurity, ServerSecurity
from splitinfer.runtime.transport import INFER, SENDER
from splitinfer.wire import Request, Wire, encode_request

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
IMAGE = torch.ones(1, 3, 32, 32)


def scrape(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Return the samples of a scrape by name and sorted labels."""
    with urllib.request.urlopen(metrics.address) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_documented_names_are_the_names() -> None:
    documented = dict(re.findall(r"^\| `(splitinfer_\w+)` \| (\w+) \|", DOCS.read_text(), re.M))
    shown = {}
    for metric in Metrics().registry.collect():
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        shown[name] = metric.type
    assert shown == documented


def test_an_edge_counts_what_it_does(models: dict[str, SplitModel]) -> None:
    split = models["plain"]
    with metrics_at(0, ServerSettings()) as metrics:
        assert metrics is not None
        with EdgeServer([split], observer=metrics.add) as server, EdgeClient(server.address) as client:
            metrics.follow(server)
            for _ in range(3):
                result = client.infer(split, 1, IMAGE)
            with pytest.raises(RemoteError):
                client.run_tail(ModelId("plain", split.fingerprint), 99, [IMAGE])
            seen = scrape(metrics)
    assert seen["splitinfer_inference_request_success_total", "cut=1", "model=plain"] == 3
    assert seen["splitinfer_inference_request_failure_total", "reason=INVALID_ARGUMENT"] == 1
    assert seen["splitinfer_inference_request_bytes_total", "model=plain"] == 3 * result.bytes_up
    assert seen["splitinfer_open_calls",] == 1
    assert seen["splitinfer_max_calls",] == 256
    for stage in ("request", "queue", "compute_infer"):
        assert seen[f"splitinfer_inference_{stage}_duration_seconds_count", "model=plain"] == 3


def test_strangers_add_no_labels(models: dict[str, SplitModel]) -> None:
    split, metrics = models["plain"], Metrics()
    counts = []
    with EdgeServer([split], observer=metrics.add) as server, grpc.insecure_channel(server.address) as channel:
        infer = channel.unary_unary(INFER)
        for number in range(60):
            asked = f"model {number}", f"print {number}", number
            names = [asked, ("plain", split.fingerprint, number + split.num_cuts), ("plain", f"{number}", 1)]
            for model, fingerprint, cut in names:
                data = encode_request(Request(model, fingerprint, cut, [IMAGE], number), Wire())
                with pytest.raises(grpc.RpcError):
                    infer(data, metadata=((SENDER, f"sender {number}"),))
            counts.append(sum(len(metric.samples) for metric in metrics.registry.collect()))
    assert counts[-1] == counts[0]


def test_a_live_run_shows_energy_cuts_and_queues() -> None:
    with metrics_at(0, ServerSettings()) as metrics:
        assert metrics is not None
        metrics.add(Started("tiny", "fixed", 0, 10, 0.01, 1.0, 0.0, [["plain"]], [[3]]))
        of_service = "device=0", "service=0"
        assert scrape(metrics)["splitinfer_task_fallback_total", *of_service] == 0, "a rate sees the first one"
        metrics.add(TaskDone(0, 0, 2, 3, 7))
        metrics.add(DidAlone(0, 8, 3, [4]))
        metrics.add(DidAlone(0, 9, 0, [2]))
        metrics.add(PeriodEnded(0, 10, [[2]], [[[5.0]], [[6.0]], [[7.0]]], [], [0.1], [1e6], [0.5], [0.25]))
        seen = scrape(metrics)
    assert seen["splitinfer_task_fallback_total", *of_service] == 6
    assert seen["splitinfer_rejoin_retry_total", "device=0"] == 3
    assert seen["splitinfer_energy_joules_total", "device=0", "part=local"] == 5.0
    assert seen["splitinfer_energy_joules_total", "device=0", "part=transmission"] == 2.5
    assert seen["splitinfer_cut", *of_service] == 2
    assert seen["splitinfer_queue_backlog", *of_service, "stage=edge"] == 7.0
    assert seen["splitinfer_task_latency_seconds_sum", *of_service] == pytest.approx(0.05)


def test_a_device_counts_fallbacks_and_retries(models: dict[str, SplitModel]) -> None:
    metrics, settings = Metrics(), ClientSettings(retries=1, breaker_failures=9)
    with EdgeClient("127.0.0.1:1", settings, on_failure="fallback", observer=metrics.add) as client:
        client.infer(models["plain"], 1, IMAGE)
        list(client.stream(models["plain"], 1, [IMAGE]))
        client.infer(models["plain"], models["plain"].num_cuts, IMAGE)  # nothing to send: no fallback

    async def ask() -> None:
        async with AsyncEdgeClient("127.0.0.1:1", settings, on_failure="fallback", observer=metrics.add) as edge:
            await edge.infer(models["plain"], 1, IMAGE)

    asyncio.run(ask())
    assert metrics.registry.get_sample_value("splitinfer_fallback_total", {"model": "plain"}) == 3
    assert metrics.registry.get_sample_value("splitinfer_retry_total", {"model": "plain"}) == 3


def test_a_taken_port_is_one_line() -> None:
    with metrics_at(0, ServerSettings()) as metrics:
        assert metrics is not None
        port = int(metrics.address.rpartition(":")[2].partition("/")[0])
        with pytest.raises(InputError, match="--metrics-port"), metrics_at(port, ServerSettings()):
            pass


def test_logs_tell_requests_by_id_and_hold_no_tokens(
    models: dict[str, SplitModel], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("device-0 a-secret-token\n")
    of_package = logging.getLogger("splitinfer")
    before = of_package.handlers, of_package.level, of_package.propagate
    try:
        log_to_stderr("json")
        settings = ServerSettings(security=ServerSecurity(token_file=str(tokens)))
        with EdgeServer([models["plain"]], settings, observer=log_event) as server:
            knows = ClientSettings(security=ClientSecurity(token_file=str(tokens)))
            with EdgeClient(server.address, knows) as client:
                client.infer(models["plain"], 1, IMAGE)
                with pytest.raises(RemoteError):
                    client.run_tail(ModelId("plain", models["plain"].fingerprint), 99, [IMAGE])
            with EdgeClient(server.address) as stranger, pytest.raises(RemoteError):
                stranger.describe()
        with pytest.raises(InputError, match="--log"):
            log_to_stderr("xml")
    finally:
        of_package.handlers, of_package.level, of_package.propagate = before
    text = capsys.readouterr().err
    lines = [json.loads(line) for line in text.splitlines()]
    told = [(line["level"], line["event"], line.get("request_id")) for line in lines if "event" in line]
    assert told == [("info", "tail", 1), ("warning", "refused", 2)]
    assert all(line["sender"].startswith("device-0/") for line in lines if "event" in line)
    assert any("without a token" in line["message"] for line in lines)
    assert "a-secret-token" not in text
