"""``EdgeProcess``: an edge server in a process of its own on this machine."""

from __future__ import annotations

import contextlib
import json
import selectors
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any

from splitinfer.errors import EdgeUnavailableError, InputError
from splitinfer.runtime.settings import ServerSettings

# Past the drain time a stopping server only has to leave.
_STOP_MARGIN_S = 10.0


class EdgeProcess:
    """An edge server in its own process, which ends with this one. A context manager.

    Attributes:
        address: ``host:port`` of the server, once started.
        pid: of the process, once started.
    """

    def __init__(
        self,
        models: Sequence[str],
        settings: ServerSettings | None = None,
        *,
        input_size: tuple[int, int] | None = None,
        start_s: float = 120.0,
    ) -> None:
        """Prepare a server process; nothing runs before :meth:`start`.

        Args:
            models: references as :func:`splitinfer.runtime.loading.capture_card` takes them.
            settings: of the server; by default a free port of the loopback interface.
            input_size: height and width in pixels instead of the cards'.
            start_s: longest time to import, capture and listen, seconds.
        """
        self.address = ""
        self.pid = 0
        settings = settings or ServerSettings()
        self._order = {"models": list(models), "settings": asdict(settings), "input_size": input_size}
        self._stop_s = settings.drain_s + _STOP_MARGIN_S
        self._start_s = start_s
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the process; returns at once. :meth:`wait_ready` tells when it answers."""
        command = [sys.executable, "-m", "splitinfer.runtime.serving", json.dumps(self._order)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid

    def wait_ready(self) -> None:
        """Wait until the server answers, and learn its address.

        Raises:
            InputError: it refuses its models or settings.
            EdgeUnavailableError: it ended or said nothing in time.
        """
        said = self._first_line()
        if "error" in said:
            self.stop()
            raise InputError(said["error"])
        self.address = said["address"]

    def stop(self) -> int:
        """Let calls under way finish, stop, and return the exit code."""
        process = self._process
        if process is None:
            return 0
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        try:
            return process.wait(self._stop_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
        finally:
            if process.stdout is not None:
                process.stdout.close()
            self._process = None

    def kill(self) -> None:
        """End the process without ceremony, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> EdgeProcess:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _first_line(self) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdout is None:
            raise EdgeUnavailableError("the edge server's process has not been started", status="UNAVAILABLE")
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(self._start_s):
                raise EdgeUnavailableError(
                    f"the edge server's process said nothing in {self._start_s:g} s", status="UNAVAILABLE"
                )
        line = process.stdout.readline()
        if not line:
            raise EdgeUnavailableError(
                f"the edge server's process ended with exit code {process.wait()}", status="UNAVAILABLE"
            )
        said: dict[str, Any] = json.loads(line)
        return said
