"""The messages of a stream, the next one taken in while one is being answered.

A handler of gRPC asks for a message when it is done with the last, and only then gRPC copies it out of its buffers.
Where a client has several requests under way, the processor would wait for that between two tails.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Iterator
from queue import SimpleQueue

import grpc


@contextlib.contextmanager
def read_ahead(messages: Iterator[bytes]) -> Generator[Iterator[bytes], None, None]:
    """Give the messages of a stream, of which a thread reads the next while the last is at work."""
    ahead = _Ahead(messages)
    try:
        yield ahead.messages()
    finally:
        ahead.stop()


class _Ahead:
    def __init__(self, messages: Iterator[bytes]) -> None:
        self._messages = messages
        self._read: SimpleQueue[bytes | None] = SimpleQueue()
        self._may_read = threading.Semaphore(1)
        self._is_over = False
        threading.Thread(target=self._run, name="splitinfer-ahead", daemon=True).start()

    def messages(self) -> Iterator[bytes]:
        while (message := self._read.get()) is not None:
            self._may_read.release()
            yield message
            del message  # its handler is done with it, and the next may be long in coming

    def stop(self) -> None:
        """Let the thread end; one that waits for a message does so with the call, which gRPC then ends for it."""
        self._is_over = True
        self._may_read.release()

    def _run(self) -> None:
        message: bytes | None = b""
        while message is not None and self._may_read.acquire() and not self._is_over:
            message = None
            try:
                with contextlib.suppress(grpc.RpcError):  # gRPC's word, without content, for a call that was cancelled
                    message = next(self._messages, None)
            finally:  # or its handler would wait for ever, and keep the call's place
                self._read.put(message)
