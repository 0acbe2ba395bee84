"""Lost and late packets, by the kernel (``tc netem``), in a network namespace where nobody else's are touched."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

_HERE = "SPLITINFER_NETEM"
_ENTER = f'ip link set lo up && tc qdisc add dev lo root netem && {_HERE}=1 exec "$@"'


def namespace() -> list[str] | str:
    """Return what a command that is to run in such a namespace begins with, or why there can be none here."""
    command = ["unshare", "--map-root-user", "--net", "sh", "-c", _ENTER, "sh"]
    try:
        tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "it wants Linux with unshare, ip and tc"
    return command if tried.returncode == 0 else (tried.stderr.strip().splitlines() or ["it is refused"])[-1]


def is_here() -> bool:
    """Whether this process runs in one."""
    return _HERE in os.environ


@contextmanager
def losing(percent: float, delay_ms: float) -> Iterator[None]:
    """Lose so many of all packets of this namespace, and let the others be late, in the block."""
    _set("loss", f"{percent:.2f}%", "delay", f"{delay_ms:.2f}ms", f"{delay_ms / 3:.2f}ms")
    try:
        yield
    finally:
        _set()


def _set(*what: str) -> None:
    subprocess.run(["tc", "qdisc", "replace", "dev", "lo", "root", "netem", *what], check=True)
