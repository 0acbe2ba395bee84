"""A relay that stands for a slow link: the same bytes, and never sooner than the link allows."""

from __future__ import annotations

import socket
import threading
import time

from splitinfer.runtime.emulation.relay import LinkRelay


def test_bytes_arrive_as_they_were_and_not_before_the_link_is_done() -> None:
    sent = bytes(range(256)) * 400
    with socket.create_server(("127.0.0.1", 0)) as server:

        def echo() -> None:
            connection, _ = server.accept()
            with connection:
                data = b""
                while len(data) < len(sent):
                    data += connection.recv(1 << 16)
                connection.sendall(data)

        thread = threading.Thread(target=echo, daemon=True)
        thread.start()
        target = f"127.0.0.1:{server.getsockname()[1]}"
        with LinkRelay(target, bandwidth_bps=8e6, rtt_s=0.05) as relay:
            host, _, port = relay.address.rpartition(":")
            with socket.create_connection((host, int(port))) as near:
                start = time.perf_counter()
                near.sendall(sent)
                received = b""
                while len(received) < len(sent):
                    received += near.recv(1 << 16)
                took_s = time.perf_counter() - start
        thread.join()
    assert received == sent
    assert took_s >= len(sent) * 8 / 8e6 + 0.05


def test_a_server_that_is_not_there_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = f"127.0.0.1:{server.getsockname()[1]}"
    with LinkRelay(target, bandwidth_bps=1e6, rtt_s=0.0) as relay:
        host, _, port = relay.address.rpartition(":")
        with socket.create_connection((host, int(port))) as near:
            assert near.recv(1) == b""
