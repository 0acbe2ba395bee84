"""Reading files that people give: bounded, and never waiting for something that is no file."""

from __future__ import annotations

import errno
import json
import os
import stat
import tomllib
from pathlib import Path
from typing import Any

MAX_TEXT_BYTES = 50_000_000
"""Largest text file read, unless its reader says otherwise."""

_PIPES = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")
"""Where a shell's ``<(...)`` and ``-`` stand for a file; their other end is at work."""


def check_file(path: str | Path, *, max_bytes: int | None = None) -> None:
    """Refuse what would be waited for without end, or does not end: pipes without a writer, devices, sockets.

    Raises:
        OSError: it is none of a file, is absent, or has more than ``max_bytes``; ``strerror`` says so in words.
    """
    status = Path(path).stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode) and not str(path).startswith(_PIPES):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    if max_bytes is not None and status.st_size > max_bytes:
        raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes, more than {max_bytes:,}", str(path))


def read_text(path: str | Path, *, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Return a file's text, without a byte-order mark.

    Raises:
        OSError: as ``check_file``, or it cannot be read.
        UnicodeDecodeError: it is no UTF-8.
    """
    check_file(path, max_bytes=max_bytes)
    with Path(path).open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:  # a pipe, or a file that grows
        raise OSError(errno.EFBIG, f"it has more than {max_bytes:,} bytes", str(path))
    return data.decode("utf-8-sig")


def read_toml(path: str | Path) -> dict[str, Any]:
    """Return what a TOML file says.

    Raises:
        OSError, UnicodeDecodeError: as ``read_text``.
        tomllib.TOMLDecodeError: it is no TOML, or nested too deeply.
    """
    return toml_of(read_text(path))


def toml_of(text: str) -> dict[str, Any]:
    """Return what a TOML text says; ``tomllib.TOMLDecodeError`` where it is none, or nested too deeply."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise tomllib.TOMLDecodeError("it is nested too deeply") from None


def read_json(path: str | Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        OSError, UnicodeDecodeError: as ``read_text``.
        json.JSONDecodeError: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(read_text(path))
    except RecursionError:
        raise json.JSONDecodeError("it is nested too deeply", "", 0) from None
