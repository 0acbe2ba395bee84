"""An idle gap of several keep-alive intervals on one connection, and a connection that dies in silence meanwhile."""

from __future__ import annotations

import threading

import pytest
import torch

from benchmarks.faults.proxy import Proxy
from splitinfer.errors import EdgeUnavailableError
from splitinfer.graph import SplitModel
from splitinfer.runtime import ClientSettings, EdgeClient, EdgeServer, ServerSettings, transport
from splitinfer.runtime import settings as settings_module
from tests.runtime.small import plain

IMAGE = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> float:
    """The least keep-alive interval, made short; both ends' options follow from it as they always do."""
    for module in (settings_module, transport):
        monkeypatch.setattr(module, "LEAST_KEEPALIVE_S", 0.4)
    return 0.4


def test_an_idle_gap_keeps_the_connection(quick: float) -> None:
    split = SplitModel.capture(plain().eval(), (IMAGE,), name="plain")
    with (
        EdgeServer([split], ServerSettings(keepalive_s=quick)) as server,
        Proxy(int(server.address.rpartition(":")[2])) as proxy,
        EdgeClient(proxy.address, ClientSettings(keepalive_s=quick, retries=0)) as client,
    ):
        first = client.infer(split, 1, IMAGE).output
        threading.Event().wait(8 * quick)  # eight times asked whether the other is there, without any call
        assert torch.equal(client.infer(split, 1, IMAGE).output, first)
        assert proxy.connections == 1


def test_a_connection_that_died_in_silence_is_noticed(quick: float) -> None:
    split = SplitModel.capture(plain().eval(), (IMAGE,), name="plain")
    with (
        EdgeServer([split], ServerSettings(keepalive_s=quick)) as server,
        Proxy(int(server.address.rpartition(":")[2])) as proxy,
        EdgeClient(proxy.address, ClientSettings(keepalive_s=quick, retries=0, deadline_s=500)) as client,
    ):
        client.infer(split, 1, IMAGE)
        proxy.is_silent = True
        with pytest.raises(EdgeUnavailableError):  # long before the deadline, which is longer than any test may take
            client.infer(split, 1, IMAGE)
        proxy.heal()
        for _ in range(100):  # a new connection may have begun in the silence
            try:
                assert client.infer(split, 1, IMAGE).cut == 1
                break
            except EdgeUnavailableError:
                continue
        assert proxy.connections >= 2
