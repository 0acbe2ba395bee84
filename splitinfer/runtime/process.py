"""``EdgeProcess``: an edge server in a process of its own on this machine."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from dataclasses import asdict
from types import TracebackType

from splitinfer.errors import EdgeUnavailableError
from splitinfer.models.options import CaptureOptions
from splitinfer.runtime.child import Child, Said, raised_error
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
        options: CaptureOptions | None = None,
        start_s: float = 120.0,
    ) -> None:
        """Prepare a server process; nothing runs before :meth:`start`.

        Args:
            models: references as :func:`splitinfer.runtime.loading.capture_card` takes them.
            settings: of the server; by default a free port of the loopback interface.
            options: of the capture.
            start_s: longest time to import, capture and listen, seconds.
        """
        self.address = ""
        self.pid = 0
        settings = settings or ServerSettings()
        options = options or CaptureOptions()
        self._order = {"models": list(models), "settings": asdict(settings), "options": options.to_dict()}
        self._stop_s = settings.drain_s + _STOP_MARGIN_S
        self._start_s = start_s
        self._said: queue.SimpleQueue[tuple[str, Said | None]] = queue.SimpleQueue()
        self._child: Child | None = None

    def start(self) -> None:
        """Start the process; returns at once. :meth:`wait_ready` tells when it answers."""
        self._child = Child("splitinfer.runtime.serving", self._order, "the edge server", self._said)
        self.pid = self._child.pid

    def wait_ready(self) -> None:
        """Wait until the server answers, and learn its address.

        Raises:
            InputError: it refuses its models or settings.
            EdgeUnavailableError: it ended or said nothing in time.
        """
        if self._child is None:
            raise EdgeUnavailableError("the edge server's process has not been started", status="UNAVAILABLE")
        try:
            _, event = self._said.get(timeout=self._start_s)
        except queue.Empty:
            raise EdgeUnavailableError(
                f"the edge server's process said nothing in {self._start_s:g} s", status="UNAVAILABLE"
            ) from None
        if event is None:
            raise EdgeUnavailableError(
                f"the edge server's process ended with exit code {self.stop()}", status="UNAVAILABLE"
            )
        if event["event"] == "error":
            self.stop()
            raise raised_error(event)
        self.address = event["address"]

    def stop(self) -> int:
        """Let calls under way finish, stop, and return the exit code."""
        child, self._child = self._child, None
        return 0 if child is None else child.stop(self._stop_s)

    def kill(self) -> None:
        """End the process without ceremony, as a crash would."""
        if self._child is not None:
            self._child.kill()
            self._child.stop(self._stop_s)

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
