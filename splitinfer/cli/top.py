"""``splitinfer top``: the live page in a terminal."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from splitinfer.errors import InputError, MissingExtraError


def top(
    server: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Address of the live page: the --web-port of run, edge or serve.")
    ] = "127.0.0.1:8080",
) -> None:
    """Watch a live run or an edge server in a terminal, also over ssh: what the page of --web-port shows.

    Example:
      splitinfer top --server 127.0.0.1:8080
    """
    from importlib.util import find_spec

    if find_spec("textual") is None:
        raise MissingExtraError("textual", "top")
    host, _, port = server.rpartition(":")
    is_port = re.fullmatch(r"[0-9]{1,5}", port) is not None and 0 < int(port) < 65536
    if not host or not is_port or any(c in host for c in "/?# @"):
        raise InputError(f"--server: must be HOST:PORT, not {server!r}")
    from splitinfer.web.terminal import Top, fetch

    fetch(server)  # a wrong address is one line, not an empty screen
    Top(server).run()
