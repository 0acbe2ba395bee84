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
    [said] = done.stderr.splitlines()
    assert "compiling loops over slots" in said


INTERRUPTED = """
import os, signal
from numba.core import event
from splitinfer.scheduling.compiled import njit

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with it ignored


class Interrupt(event.Listener):
    done = False

    def on_start(self, event):
        if not self.done:
            self.done = True
            os.kill(os.getpid(), signal.SIGINT)

    def on_end(self, event):
        pass


with event.install_listener("numba:llvm_lock", Interrupt()):
    try:
        print(njit()(lambda x: x + 1)(1))
    except KeyboardInterrupt:
        print("interrupted")
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def test_an_interrupt_while_loops_are_compiled_is_kept_until_they_are():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=True)
    assert done.stdout == "interrupted\nTrue\n"
    assert "Traceback" not in done.stderr
