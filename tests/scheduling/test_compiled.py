"""What takes half a minute on the first use after an install is said, once."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
from splitinfer.cli.output import show_progress
from splitinfer.scheduling.compiled import njit
show_progress()
print(njit(lambda x: x + 1)(1), njit(lambda x: x + 2)(1.5))
"""


def test_the_first_compilation_of_a_process_is_said_once():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == "2 3.5\n"
    assert done.stderr == "splitinfer: compiling the loops over slots, once after an install or an update ...\n"
