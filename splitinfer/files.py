"""Files that people give, read within bounds and without waiting; and files of ours, written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MAX_TEXT_BYTES = 50_000_000
"""Largest text file read, unless its reader says otherwise."""

_LONG_KEY = re.compile(r"""(?<![\w.-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){100}""")
"""A key of more than a hundred parts: the time and memory that one takes grow with their square."""

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
        OSError: as ``check_file``, or it cannot be read, or is no UTF-8 text.
    """
    check_file(path, max_bytes=max_bytes)
    with Path(path).open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:  # a pipe, or a file that grows
        raise OSError(errno.EFBIG, f"it has more than {max_bytes:,} bytes", str(path))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise OSError(errno.EILSEQ, f"it is no UTF-8 text (line {line})", str(path)) from None


def read_toml(path: str | Path) -> dict[str, Any]:
    """Return what a TOML file says.

    Raises:
        OSError: as ``read_text``.
        ValueError: it is no TOML, nested too deeply, or has a number without end.
    """
    return toml_of(read_text(path))


def toml_of(text: str) -> dict[str, Any]:
    """Return what a TOML text says; ``ValueError`` as ``read_toml``."""
    if _LONG_KEY.search(text) is not None:
        raise ValueError("it is nested too deeply")
    with _in_words(tomllib.TOMLDecodeError):
        return tomllib.loads(text)


def read_json(path: str | Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        OSError: as ``read_text``.
        ValueError: it is no JSON, nested too deeply, or has a number without end.
    """
    return json_of(read_text(path))


def json_of(text: str) -> Any:
    """Return what a JSON text holds; ``ValueError`` as ``read_json``."""
    with _in_words(json.JSONDecodeError):
        return json.loads(text)


@contextmanager
def _in_words(own: type[ValueError]) -> Iterator[None]:
    """Say what else than its own errors a parser may raise."""
    try:
        yield
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except own:
        raise
    except ValueError:  # Python turns no more than some thousand digits into a number
        raise ValueError("a number in it has too many digits") from None


_PART = re.compile(r"\.(\d+)\.part(\.[^.]*)?$")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a path to write to; at the end of the block what was written takes the file's place at once.

    A full disk, a signal or a second writer leaves the old file or the new one, and never half of one. What a process
    that is gone left unfinished is removed. Pipes and devices are written to as they are.

    Raises:
        OSError: it cannot be written; names the file itself.
    """
    target = Path(path).resolve()
    if (target.exists() and not target.is_file()) or not os.access(target.parent, os.W_OK):
        with _named(path):
            yield Path(path)
        return
    # The suffix stays, since it says what kind of file is to be written.
    part = target.with_name(f".{target.stem}.{threading.get_ident()}.{os.getpid()}.part{target.suffix}")
    for old in target.parent.glob(f".{target.stem}.*.part{target.suffix}"):
        if is_abandoned(old):
            old.unlink(missing_ok=True)
    try:
        with _named(path, str(part)):
            yield part
            if target.exists():
                part.chmod(stat.S_IMODE(target.stat().st_mode))
            part.replace(target)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _named(path: str | Path, *instead: str) -> Iterator[None]:
    """Name a file in errors that name none, or one of others."""
    try:
        yield
    except OSError as error:
        if error.filename in (None, *instead):
            error.filename = str(path)
        raise


@contextmanager
def alone_in(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Make a folder, and keep others who ask for the same from writing into it in this block.

    Raises:
        BlockingIOError: another process is in it, and this one was not to wait.
    """
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(held)


def is_abandoned(path: Path) -> bool:
    """Whether this is what a process left unfinished that is no more: ``*.PID.part``, with a suffix or without."""
    found = _PART.search(path.name)
    if found is None:
        return False
    try:
        os.kill(int(found[1]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # somebody else's process
        return False
    return False


def cache_folder() -> Path:
    """Where things are kept between starts: ``$SPLITINFER_CACHE``, or ``~/.cache/splitinfer``."""
    given = os.environ.get("SPLITINFER_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "splitinfer"


def is_ours(path: Path) -> bool:
    """Whether nobody but this user could have written a file, nor replaced it."""
    return only_we_write(path) and only_we_write(path.parent) and path.is_file() and not path.is_symlink()


def only_we_write(place: Path) -> bool:
    """Whether a file or folder is this user's, and nobody else may write to it."""
    if not hasattr(os, "getuid"):
        return True
    about = place.lstat()
    return about.st_uid == os.getuid() and not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
