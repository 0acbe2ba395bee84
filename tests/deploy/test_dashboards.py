"""Every query of the dashboard and the alert rules, against a real Prometheus that scrapes a real edge."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from splitinfer.graph import SplitModel
from splitinfer.runtime import EdgeClient, EdgeServer, ServerSettings
from splitinfer.runtime.events import DidAlone, Inferred, PeriodEnded, Refused, Repeated, Started, TaskDone
from splitinfer.runtime.metrics import metrics_at
from tests.runtime.small import plain

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
PROMETHEUS = shutil.which("prometheus")
pytestmark = pytest.mark.skipif(PROMETHEUS is None, reason="Debian's prometheus is not installed")


def panels() -> dict[str, str]:
    board = json.loads((DEPLOY / "grafana" / "splitinfer.json").read_text(encoding="utf-8"))
    filled = {"$__rate_interval": "10s", "$instance": ".*", "$device": ".*"}
    queries = {}
    for panel in board["panels"]:
        for target in panel["targets"]:
            query = target["expr"]
            for name, value in filled.items():
                query = query.replace(name, value)
            queries[f"{panel['title']} {target['refId']}"] = query
    return queries


def alerts() -> dict[str, str]:
    (group,) = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule["expr"] for rule in group["rules"]}


def ask(address: str, query: str) -> dict[str, Any]:
    url = f"{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        reply: dict[str, Any] = json.load(answer)
    assert reply["status"] == "success", reply
    return reply["data"]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that has scraped an edge several times while it worked; its address."""
    folder = tmp_path_factory.mktemp("prometheus")
    image = torch.randn(1, 3, 32, 32)
    split = SplitModel.capture(plain().eval(), (image,), name="plain")
    with (
        metrics_at(0, ServerSettings()) as metrics,
        EdgeServer([split], ServerSettings(batch=2), observer=metrics.add) as edge,  # type: ignore[union-attr]
    ):
        assert metrics is not None
        metrics.follow(edge)
        target = metrics.address.removeprefix("http://").removesuffix("/metrics")
        settings = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
        settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        settings["rule_files"] = [str(RULES)]
        settings["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        command = [PROMETHEUS, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log = (folder / "log").open("w")
        server = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"],  # type: ignore[list-item]
            stdout=log,
            stderr=log,
        )
        address = f"http://127.0.0.1:{port}"
        try:
            metrics.add(Started("tiny", "fixed", 0, 10, 0.01, 1.0, 0.0, [["plain"]], [[3]]))
            with EdgeClient(edge.address) as client:
                for number in range(100_000):
                    client.infer(split, 1, image)
                    for event in (
                        Refused("RESOURCE_EXHAUSTED", "full"),
                        Repeated("plain", 1),
                        Inferred("plain", 1, "device", 1),
                        TaskDone(0, 0, 2, 3, 7),
                        DidAlone(0, 7, 1, [2]),
                        PeriodEnded(number, 1, [[2]], [[[5.0]], [[6.0]], [[7.0]]], [], [0.1], [1e6], [0.5], [0.2]),
                    ):
                        metrics.add(event)
                    if _scrapes(address) >= 5:
                        break
                    time.sleep(0.1)
            yield address
        finally:
            server.terminate()
            server.wait(20)
            log.close()


def _scrapes(address: str) -> int:
    try:
        found = ask(address, "sum(count_over_time(splitinfer_inference_request_success_total[1m]))")["result"]
    except OSError:  # not up yet
        return 0
    return int(found[0]["value"][1]) if found else 0


def test_every_panel_has_data(prometheus: str) -> None:
    empty = [title for title, query in panels().items() if not ask(prometheus, query)["result"]]
    assert empty == []
    assert len(panels()) >= 20


def test_every_alert_can_be_evaluated_and_fires_on_what_it_is_about(prometheus: str) -> None:
    found = {name: ask(prometheus, query.replace("[5m]", "[10s]"))["result"] for name, query in alerts().items()}
    assert {"SplitinferRefusals", "SplitinferFallbacks", "SplitinferDeviceAlone"} <= {
        name for name, result in found.items() if result
    }
    assert not found["SplitinferEdgeDown"]
    with urllib.request.urlopen(f"{prometheus}/api/v1/rules", timeout=10) as answer:
        (group,) = json.load(answer)["data"]["groups"]
    assert {rule["name"] for rule in group["rules"]} == set(alerts())
    assert all(rule["health"] != "err" for rule in group["rules"]), group


def test_promtool_takes_rules_and_configuration() -> None:
    for command in (["check", "rules", str(RULES)], ["check", "config", str(DEPLOY / "prometheus" / "prometheus.yml")]):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_every_metric_of_the_queries_is_documented() -> None:
    documented = (DEPLOY.parent / "docs" / "metrics.md").read_text(encoding="utf-8")
    for query in (*panels().values(), *alerts().values()):
        for name in re.findall(r"splitinfer_\w+", query):
            assert re.sub(r"_(bucket|sum|count)$", "", name) in documented, name
