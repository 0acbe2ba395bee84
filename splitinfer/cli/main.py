"""The ``splitinfer`` command: finds the verb, runs it, and turns errors into one line and an exit code.

A verb is one module of this package with one function of the same name, whose docstring is its help and ends with
``Example:``. It is imported only when it is asked for.
"""

from __future__ import annotations

import errno
import inspect
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import Any

import typer
from typer.core import TyperGroup

_GROUPS = {
    "Models": {
        "demo": "the main job in one command: profile, split at every cut over a real edge, compare",
        "models": "list what can be profiled and served",
        "card": "write the card of a model of your own",
        "advise": "whether and where to split a model, for a link and a device",
        "profile": "measure a model: MACs, crossing tensors and latency at every cut",
    },
    "Split inference": {
        "serve": "run the edge server",
        "infer": "run real split inferences of pictures",
        "export": "write head and tail as files, for devices without torch",
        "certs": "make a private CA and certificates for the edge and its devices",
    },
    "Scheduling": {
        "scenario": "write a scenario file with every field and its meaning",
        "simulate": "simulate a scenario under one policy",
        "bound": "a lower bound on energy and latency, and every policy's distance to it",
        "pareto": "sweep the energy weight and show energy against delay",
        "train": "train a scheduling policy",
        "reproduce": "reproduce the paper's figures: sweeps, pictures, tables",
    },
    "Live runs": {
        "run": "scheduler in the loop: real devices, a real edge, emulated clock and radio",
        "edge": "be the edge of a live run whose devices come from other machines",
        "device": "run the heads of one device under the scheduler",
        "top": "watch a live run or an edge server in a terminal",
        "devices": "list the device cards: what processors and radios really draw",
        "calibrate": "measure this host's speed and energy, for advise and scenarios",
    },
}
_VERBS = {name: about for group in _GROUPS.values() for name, about in group.items()}

# typer carries its own copy of click from 0.26 on; this is the class of usage mistakes in either.
_UsageError: Any = typer.BadParameter.__mro__[1]

_INTERRUPTED = 130
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}
_BROKEN_PIPE = 141
_MAX_LINE = 2000
"""Characters of an error's line; what is longer loses its middle."""


def verbs() -> list[str]:
    """Return the names of the verbs."""
    return list(_VERBS)


class _Verbs(TyperGroup):
    """The verbs by name, each built when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return verbs()

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in verbs():
            return None
        function = getattr(import_module(f"splitinfer.cli.{cmd_name}"), cmd_name)
        text, _, example = inspect.cleandoc(function.__doc__).partition("Example:")
        verb = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        verb.command(cmd_name, help=text.strip(), epilog=f"\b\nExample:{example.rstrip()}")(function)
        command = typer.main.get_command(verb)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for title, group in _GROUPS.items():
            with formatter.section(title):
                formatter.write_dl(list(group.items()))


app = typer.Typer(
    cls=_Verbs,
    add_completion=False,
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: splitinfer profile resnet18 --no-latency",
)


@app.callback(help="Split DNN inference that is real: cut a PyTorch model, run the halves, schedule energy and queues.")
def _options(
    version: bool = typer.Option(False, "--version", help="Print the version and leave.", is_eager=True),
    trust_code: bool = typer.Option(
        False,
        "--trust-code",
        help="Let cards and scenarios name any installed code, not models and your own code alone: it runs.",
    ),
) -> None:
    if trust_code:
        from splitinfer.user_code import TRUST_VARIABLE

        os.environ[TRUST_VARIABLE] = "1"  # child processes read the same files
    if version:
        from splitinfer import __version__

        print(f"splitinfer {__version__}")
        raise typer.Exit


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    0 on success, 2 with one line on standard error for a mistake in the command line or its values, 1 when a check
    that was asked for does not hold, 130 when interrupted, 143 when told to end (SIGTERM).
    With SPLITINFER_DEBUG=1 in the environment the traceback of an error comes before its line.
    """
    from splitinfer.cli.output import show_progress
    from splitinfer.errors import SplitInferError

    show_progress()
    # gRPC's core writes lines of its own to standard error about whatever we say in one.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    ended_by: list[int] = []
    arguments = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # what a terminal's encoding lacks ends no command
        sys.stdout.reconfigure(errors="backslashreplace")
    for argument in arguments:
        if not argument.isascii() and any("\ud800" <= one <= "\udfff" for one in argument):
            return _fail(f"an argument is no UTF-8 text: {argument!a}", 2)
    try:
        with _ended_by_signals(ended_by):
            result = app(arguments or ["--help"], prog_name="splitinfer", standalone_mode=False)
            sys.stdout.flush()
    except SplitInferError as error:
        if os.environ.get("SPLITINFER_DEBUG", "0") not in ("", "0"):
            traceback.print_exception(error)
        return _fail(str(error), error.exit_code)
    except _UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "splitinfer"
        return _fail(f"{error.format_message().rstrip('.')} (see '{command} --help')", 2)
    except (KeyboardInterrupt, typer.Abort):
        result = _INTERRUPTED
    except MemoryError as error:
        return _fail(f"this needs more memory than there is{': ' if str(error) else ''}{error}", 2)
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # torch's MemoryError
            raise
        return _fail("this needs more memory than there is", 2)
    except BrokenPipeError:
        return _reader_is_gone()
    except SystemExit as leave:
        if isinstance(leave.__context__, BrokenPipeError):
            return _reader_is_gone()
        raise
    except OSError as error:
        if error.filename is None and error.errno in _NO_ROOM:
            return _fail(f"cannot write or open a file: {error.strerror}", 2)
        if error.filename is None:
            raise
        return _fail(f"cannot use {error.filename}: {error.strerror}", 2)
    if ended_by:  # typer may have made a result of the interruption
        return 128 + ended_by[0]
    if result == _INTERRUPTED:
        print("splitinfer: interrupted", file=sys.stderr)
    return result if isinstance(result, int) else 0


_AGAIN_S = 0.05
"""From a signal that a finalizer swallowed until it comes again."""


class _ToldToEndError(KeyboardInterrupt):
    """Caught as Ctrl-C is; of a KeyboardInterrupt itself in ``exec`` of a text Python would die at its exit."""


@contextmanager
def _ended_by_signals(which: list[int]) -> Iterator[None]:
    """Take SIGTERM and SIGHUP as Ctrl-C in this block, unless somebody else takes them; add what came to a list.

    What comes while Python runs a finalizer, which swallows it, comes again a moment later.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
        which.append(number)
        raise _ToldToEndError

    def again(swallowed: Any) -> None:
        if not issubclass(swallowed.exc_type, KeyboardInterrupt):
            before(swallowed)
            return
        number: int = signal.SIGINT
        if which and issubclass(swallowed.exc_type, _ToldToEndError):  # SIGINT may be ignored, as in a shell's job
            number = which.pop()
            signal.signal(number, end)
        timer = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()

    taken = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, end)
    before, sys.unraisablehook = sys.unraisablehook, again
    try:
        yield
    finally:
        sys.unraisablehook = before
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _fail(message: str, exit_code: int) -> int:
    print(f"splitinfer: error: {_one_line(message)}", file=sys.stderr)
    return exit_code


def _one_line(message: str) -> str:
    """Whatever a file, a name or another end put into a message, it moves no cursor and fills no screen."""
    line = " ".join(message.split())
    line = "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in line)
    if len(line) <= _MAX_LINE:
        return line
    return f"{line[: _MAX_LINE // 2]} ... {line[-_MAX_LINE // 4 :]}"


def _reader_is_gone() -> int:
    """The reader of our output left (``| head``): nothing to say, and nothing more to flush at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _BROKEN_PIPE


if __name__ == "__main__":
    sys.exit(main())
