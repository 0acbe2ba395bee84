"""The page's own small server: one static page, and server-sent events. Nothing is fetched from elsewhere."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

from splitinfer.errors import InputError, MissingExtraError
from splitinfer.web.state import LiveState

UPDATE_S = 0.5
"""Time between two updates of a page."""

START_S = 10.0


class WebPage:
    """A page on a port of this machine. An observer: give ``add`` the events.

    Args:
        host: to listen on; loopback, unless others may look on.
        port: 0 picks a free one.

    Attributes:
        address: URL of the page.

    Raises:
        MissingExtraError: starlette or uvicorn is not installed.
        InputError: the port cannot be listened on.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        for package in ("starlette", "uvicorn"):
            if find_spec(package) is None:
                raise MissingExtraError(package, "web")
        import socket

        import uvicorn

        self.state = LiveState()
        self.add = self.state.add
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            raise InputError(f"--web-port: cannot listen on {host}:{port}: {error.strerror}") from None
        shown = f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{self._socket.getsockname()[1]}/"
        self._is_over = threading.Event()
        app = _app(self.state, self._is_over)
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="splitinfer-web", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + START_S
        while not self._server.started and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)

    def close(self) -> None:
        """Stop listening."""
        self._is_over.set()  # for pages that are open, whose streams would be waited for
        self._server.should_exit = True
        self._thread.join(2 * UPDATE_S)
        self._server.force_exit = True  # those that do not read
        self._thread.join(START_S)
        self._socket.close()


@contextmanager
def page_at(port: int | None) -> Iterator[WebPage | None]:
    """Show a page on a port in this block; none without a port."""
    page = None if port is None else WebPage(port=port)
    try:
        yield page
    finally:
        if page is not None:
            page.close()


_FILES = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
    "/uplot.js": ("vendor/uplot/uPlot.iife.min.js", "text/javascript"),
    "/uplot.css": ("vendor/uplot/uPlot.min.css", "text/css"),
}
"""What the page is made of, by path; all of it lies in this package."""

_SECURITY_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"
"""A browser asks nobody but this server, and runs nothing that is written into the page."""


def _app(state: LiveState, is_over: threading.Event) -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response, StreamingResponse
    from starlette.routing import Route

    def file(name: str, kind: str) -> Any:
        content = files("splitinfer.web").joinpath(name).read_bytes()
        headers = {"Content-Security-Policy": _SECURITY_POLICY, "Cache-Control": "no-cache"}

        async def show(request: Request) -> Response:
            return Response(content, media_type=kind, headers=headers)

        return show

    async def snapshot(request: Request) -> Response:
        return JSONResponse(state.since(_seen(request)))

    async def follow(request: Request) -> Response:
        async def lines() -> AsyncIterator[str]:
            seen = _seen(request)
            while not (is_over.is_set() or await request.is_disconnected()):
                news = state.since(seen)
                if news["seen"] != seen:
                    seen = news["seen"]
                    yield f"id: {seen}\ndata: {json.dumps(news)}\n\n"
                await asyncio.sleep(UPDATE_S)

        return StreamingResponse(lines(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    pages = [Route(path, file(*name)) for path, name in _FILES.items()]
    return Starlette(routes=[*pages, Route("/state", snapshot), Route("/events", follow)])


def _seen(request: Any) -> str:
    return str(request.query_params.get("since") or request.headers.get("last-event-id") or "")
