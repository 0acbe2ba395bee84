"""A wall clock that jumps, for a process and its children. Deadlines and pauses must not notice.

A library made of ``shifted_clock.c`` is loaded before every other; a file says by how much the clock is wrong. What
starts later, an edge that is started again, sees the same clock.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_FILE = "SHIFTED_CLOCK"
_BYTES = 8  # a long


@contextmanager
def jumping_clock() -> Iterator[Mapping[str, str] | str]:
    """Give the environment of a process whose clock can jump, or why there can be none here."""
    compiler = shutil.which("cc")
    if compiler is None or os.uname().sysname != "Linux":
        yield "it wants Linux and a C compiler (cc)"
        return
    with tempfile.TemporaryDirectory(prefix="splitinfer-clock-") as folder:
        library, file = Path(folder) / "clock.so", Path(folder) / "shift"
        source = Path(__file__).with_name("shifted_clock.c")
        command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            yield f"shifted_clock.c does not compile: {made.stderr.strip().splitlines()[-1]}"
            return
        file.write_bytes(bytes(_BYTES))
        yield os.environ | {"LD_PRELOAD": str(library), _FILE: str(file)}


def can_jump() -> bool:
    """Whether this process has such a clock."""
    return _FILE in os.environ


def jump_to(shift_s: int) -> None:
    """Set the wall clock to so many seconds before or after the right time."""
    with Path(os.environ[_FILE]).open("r+b") as file:
        file.write(shift_s.to_bytes(_BYTES, "little", signed=True))
