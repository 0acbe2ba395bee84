"""A slower way to a server that is near: a relay for TCP that takes as long as a link of some rate and delay."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from types import TracebackType

_CHUNK_BYTES = 16 << 10
_QUEUED_CHUNKS = 64
"""Read ahead of the link, 1 MiB: more is left to the sender, as by a network that is full."""


class LinkRelay:
    """Relays connections to a server; what goes up takes its bits over the rate, and half the round trip each way.

    As a context manager it is open inside.

    Args:
        target: ``host:port`` of the server.
        bandwidth_bps: of the way up, shared by all connections; the way down has no limit.
        rtt_s: round trip, seconds.

    Attributes:
        address: ``host:port`` to connect to.
    """

    def __init__(self, target: str, *, bandwidth_bps: float, rtt_s: float) -> None:
        host, _, port = target.rpartition(":")
        self._server = host.strip("[]"), int(port)
        self._seconds_per_byte = 8 / bandwidth_bps
        self._delay_s = rtt_s / 2
        self._lock = threading.Lock()
        self._free_s = 0.0  # when the last byte so far will have left
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> LinkRelay:
        threading.Thread(target=self._accept, name="splitinfer-relay", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for each in (self._listener, *sockets):
            _end(each)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:  # closed
                return
            try:
                far = socket.create_connection(self._server, timeout=10)
                far.settimeout(None)
            except OSError:
                near.close()
                continue
            with self._lock:
                self._sockets += [near, far]
            for one, other, per_byte_s in ((near, far, self._seconds_per_byte), (far, near, 0.0)):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                line: queue.Queue[tuple[float, bytes]] = queue.Queue(_QUEUED_CHUNKS)
                for work, end in ((self._read, one), (self._write, other)):
                    arguments = end, line, per_byte_s
                    threading.Thread(target=work, args=arguments, name="splitinfer-relay", daemon=True).start()

    def _read(self, source: socket.socket, line: queue.Queue[tuple[float, bytes]], per_byte_s: float) -> None:
        data = b"?"
        while data:
            try:
                data = source.recv(_CHUNK_BYTES)
            except OSError:
                data = b""
            leaves_s = time.perf_counter()
            if per_byte_s:
                with self._lock:
                    self._free_s = leaves_s = max(leaves_s, self._free_s) + len(data) * per_byte_s
            line.put((leaves_s + self._delay_s, data))

    def _write(self, sink: socket.socket, line: queue.Queue[tuple[float, bytes]], per_byte_s: float) -> None:
        is_open = True
        while True:
            due_s, data = line.get()
            if not data:
                _end(sink)
                return
            time.sleep(max(0.0, due_s - time.perf_counter()))
            if is_open:  # else what the other end still sends is let go
                try:
                    sink.sendall(data)
                except OSError:
                    is_open = False


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):  # ended by the other side already
        one.shutdown(socket.SHUT_RDWR)
    one.close()
