"""A TCP proxy that delays, drops, cuts, slows and corrupts what passes it, in this process and without privileges."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from types import TracebackType

_CHUNK = 1 << 16
_CUT = struct.pack("ii", 1, 0)  # SO_LINGER of zero: closing sends a reset


class Proxy:
    """Listens on loopback and passes everything on to a server. A context manager.

    Args:
        target_port: of the server on this machine.
        seed: of what is corrupted where.

    Attributes:
        address: ``host:port`` to connect to.
        delay_s: that every chunk waits, seconds.
        bytes_per_s: that one direction passes at most; 0 for no limit.
        read_bytes_per_s: that clients take of what the server says at most, like slow readers; 0 for no limit.
        is_silent: swallow everything and close nothing, like a cable that was pulled.
        corrupt_next: chunks in which a bit is turned over, counted down.
        connections: accepted so far.
    """

    def __init__(self, target_port: int, seed: int = 0) -> None:
        self.delay_s = 0.0
        self.bytes_per_s = 0
        self.read_bytes_per_s = 0
        self.is_silent = False
        self.corrupt_next = 0
        self.connections = 0
        self._random = random.Random(seed)
        self._target = "127.0.0.1", target_port
        self._lock = threading.Lock()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._half_open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def cut(self) -> None:
        """Reset every connection."""
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CUT)
                    end.shutdown(socket.SHUT_RD)  # wakes the thread that reads, without a word to the other end
                end.close()

    def half_close(self, *, of_server: bool) -> None:
        """Close the server's end of every connection, or the clients', without a word to the other one."""
        with self._lock:
            pairs, self._pairs = self._pairs, set()
            self._half_open |= {near if of_server else far for near, far in pairs}
        for near, far in pairs:
            _close(far if of_server else near)

    def heal(self) -> None:
        """Pass everything on as it comes."""
        self.delay_s, self.bytes_per_s, self.read_bytes_per_s = 0.0, 0, 0
        self.is_silent, self.corrupt_next = False, 0

    def close(self) -> None:
        _close(self._listener)
        self.cut()
        with self._lock:
            half_open, self._half_open = self._half_open, set()
        for end in half_open:
            _close(end)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                far = socket.create_connection(self._target, timeout=5)
            except OSError:
                _close(near)
                continue
            far.settimeout(None)
            pair = near, far
            with self._lock:
                self._pairs.add(pair)
            for source, sink in (pair, pair[::-1]):
                with contextlib.suppress(OSError):  # cut meanwhile
                    sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._pass_on, args=(source, sink, pair), name="proxy", daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, pair: tuple[socket.socket, socket.socket]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                if self.is_silent:
                    continue
                if self.delay_s:
                    time.sleep(self.delay_s)
                slowest = [rate for rate in (self.bytes_per_s, source is pair[1] and self.read_bytes_per_s) if rate]
                if slowest:
                    time.sleep(len(data) / min(slowest))
                if source in self._half_open:
                    continue  # nobody is there any more, and nobody says so
                sink.sendall(self._mangled(data))
        with self._lock:
            is_open = pair in self._pairs
            self._pairs.discard(pair)
            if source in self._half_open:  # it has given up at last
                self._half_open.discard(source)
                _close(source)
        for end in pair if is_open else ():
            _close(end)

    def _mangled(self, data: bytes) -> bytes:
        if self.corrupt_next <= 0:
            return data
        self.corrupt_next -= 1
        wrong = bytearray(data)
        wrong[self._random.randrange(len(wrong))] ^= 1 << self._random.randrange(8)
        return bytes(wrong)


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
