"""The fault campaign, short, and the proxy that it goes through."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading

import pytest
import torch

from benchmarks.faults.proxy import Proxy
from splitinfer.errors import EdgeUnavailableError
from splitinfer.graph import SplitModel
from splitinfer.runtime import ClientSettings, EdgeClient, EdgeServer
from splitinfer.runtime.verify import check_answer

IMAGE = torch.ones(1, 3, 32, 32)


@pytest.fixture
def echo() -> int:
    """The port of a server that says everything back."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            with near, contextlib.suppress(ConnectionError):
                while data := near.recv(1000):
                    near.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


def test_the_proxy_does_what_it_is_told(echo: int) -> None:
    with Proxy(echo, seed=1) as proxy:
        host, port = proxy.address.split(":")
        with socket.create_connection((host, int(port)), timeout=5) as client:
            client.sendall(b"as it is")
            assert client.recv(100) == b"as it is"
            proxy.corrupt_next = 1
            client.sendall(bytes(8))
            assert sum(client.recv(100)).bit_count() == 1
            proxy.is_silent = True
            client.settimeout(0.2)
            client.sendall(b"into the void")
            with pytest.raises(TimeoutError):
                client.recv(100)
            proxy.cut()
            with pytest.raises(ConnectionError):
                client.recv(100)


def test_every_task_ends_once_and_right_and_reconnects_leave_nothing_behind() -> None:
    command = [sys.executable, "-m", "benchmarks.faults.chaos", "--json", "--tasks", "100", "--seed", "3"]
    command += ["--clients", "3", "--reconnects", "60", "--live-s", "0"]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    report = json.loads(run.stdout)
    assert report["unexpected"] == []
    assert report["wrong"] == 0
    assert sum(report["answered"].values()) + sum(report["failed"].values()) == 100
    assert set(report["failed"]) <= {"fail"}
    assert sum(report["faults"].values()) > 0
    assert report["holds"]
    before, after = report["reconnects"]["before"], report["reconnects"]["after"]
    assert after["descriptors"] <= before["descriptors"] + 2
    assert after["threads"] <= before["threads"] + 2
    assert after["resident_kib"] <= before["resident_kib"] + 20_000


def test_one_end_of_a_connection_is_closed_without_a_word_to_the_other(echo: int) -> None:
    with Proxy(echo) as proxy:
        host, port = proxy.address.split(":")
        with socket.create_connection((host, int(port)), timeout=5) as client:
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"
            proxy.half_close(of_server=True)
            client.settimeout(0.2)
            client.sendall(b"is anybody there?")
            with pytest.raises(TimeoutError):
                client.recv(100)


@pytest.mark.parametrize("stream_up_to_bytes", [0, 1 << 20])
def test_a_silent_connection_costs_one_deadline(models: dict[str, SplitModel], stream_up_to_bytes: int) -> None:
    split = models["plain"]
    settings = ClientSettings(deadline_s=0.5, retries=0, stream_up_to_bytes=stream_up_to_bytes)
    with EdgeServer([split]) as server, Proxy(int(server.address.rpartition(":")[2])) as proxy:
        with EdgeClient(proxy.address, settings) as client:
            split.run_tail(1, *split.run_head(1, IMAGE))  # compiled, so that half a second is long
            client.infer(split, 1, IMAGE)
            proxy.is_silent = True
            with pytest.raises(Exception, match="did not answer"):
                client.infer(split, 1, IMAGE)
            proxy.heal()  # for new connections: the old one has lost bytes
            check_answer(client.infer(split, 1, IMAGE).output, split(IMAGE), "on another connection")
            for _ in range(200):  # the old one is closed when no call can be under way on it any more
                if len(proxy._pairs) == 1:
                    break
                threading.Event().wait(0.1)
                client.infer(split, 1, IMAGE)
            assert len(proxy._pairs) == 1
        assert proxy.connections == 2


def test_a_cut_connection_is_tried_again(models: dict[str, SplitModel]) -> None:
    split = models["plain"]
    with EdgeServer([split]) as server, Proxy(int(server.address.rpartition(":")[2])) as proxy:
        with EdgeClient(proxy.address) as client:
            for _ in range(5):
                check_answer(client.infer(split, 1, IMAGE).output, split(IMAGE), "across cuts")
                proxy.cut()
        with EdgeClient(proxy.address, ClientSettings(retries=0)) as client:
            client.infer(split, 1, IMAGE)
            results = client.stream(split, 1, [IMAGE] * 4, window=1)
            next(results)
            proxy.cut()
            with pytest.raises(EdgeUnavailableError):
                list(results)
        with EdgeClient(proxy.address) as client:
            results = client.stream(split, 1, [IMAGE] * 6, window=2)
            for number, result in enumerate(results):
                check_answer(result.output, split(IMAGE), "stream across cuts")
                if number % 2:
                    proxy.cut()
            assert number == 5
