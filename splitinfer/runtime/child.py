"""Processes of this program's own: they get an order, say one JSON line per event, and end with their parent.

The order goes over standard input, where no list of processes shows it.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO

from splitinfer.errors import InputError, RemoteError, SplitInferError

Said = dict[str, Any]


class Child:
    """A process of this program's own; what it says goes into ``said`` with its name.

    Args:
        module: run with ``python -m``; its ``main`` is ``child_main`` below.
        order: what it is to do; JSON.
        who: its name.
        said: takes ``(who, event)``; the event None says that it has ended.
        threads: threads inside one operation, for libraries that look at the environment when they are loaded.
    """

    def __init__(
        self,
        module: str,
        order: Said,
        who: str,
        said: queue.SimpleQueue[tuple[str, Said | None]],
        *,
        threads: int | None = None,
    ) -> None:
        self.who = who
        self._said = said
        limits = {} if threads is None else {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | limits,
        )
        self.pid = self._process.pid
        self.tell(json.dumps(order))
        threading.Thread(target=self._listen, name=f"splitinfer-{who}", daemon=True).start()

    def tell(self, line: str) -> None:
        """Write one line to the process; nothing happens if it is gone."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def stop(self, timeout_s: float) -> int:
        """Tell the process to leave, and return its exit code."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return code

    def kill(self) -> None:
        """End the process now."""
        self._process.kill()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._said.put((self.who, json.loads(line)))
        self._said.put((self.who, None))


def error_event(error: SplitInferError) -> Said:
    """Return how a child says why it fails."""
    return {"event": "error", "message": str(error), "is_remote": isinstance(error, RemoteError)}


def raised_error(event: Said, who: str = "") -> SplitInferError:
    """Return the error that a child's event means, with the child's name before it."""
    message = f"{who}: {event['message']}" if who else event["message"]
    return RemoteError(message, status="INTERNAL") if event["is_remote"] else InputError(message)


def child_main(work: Callable[[Said, Callable[[Said], None], TextIO], None]) -> int:
    """Run a child: read the order, do the work, say events, and end with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends its children
    first = sys.stdin.readline()
    if not first:  # the parent is gone already
        return 3
    order: Said = json.loads(first)
    lock = threading.Lock()

    def say(event: Said) -> None:
        with lock, contextlib.suppress(BrokenPipeError):
            print(json.dumps(event), flush=True)

    try:
        work(order, say, sys.stdin)
    except SplitInferError as error:
        say(error_event(error))
        return error.exit_code
    return 0


def lines_of(parent: TextIO, at_end: Callable[[], None] | None = None) -> queue.SimpleQueue[str]:
    """Return the parent's lines as they come. Once it has closed the pipe or is gone, we end, after ``at_end``."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in parent:
            lines.put(line.strip())
        if at_end is not None:
            at_end()
        os._exit(3)

    threading.Thread(target=listen, daemon=True).start()
    return lines
