"""What the verbs print: tables on standard output, progress on standard error."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

_LINE_EVERY_S = 10.0


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[str] = ()) -> None:
    """Print rows under their column names, as wide as they need to be.

    Args:
        columns: the names.
        rows: the cells, one per column; a number that there is none for ("nan") is shown as "-".
        left: names of columns to align left; the others hold numbers and are aligned right.
    """
    rows = [["-" if cell == "nan" else cell for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    for row in [columns, ["-" * width for width in widths], *rows]:
        cells = [
            cell.ljust(width) if name in left else cell.rjust(width)
            for cell, width, name in zip(row, widths, columns, strict=True)
        ]
        print("  ".join(cells).rstrip())


_LAYER_SHOWN = 44


def shown_layer(name: str) -> str:
    """Return the name of a cut's layer as tables show it: those of set cuts may be long."""
    return name if len(name) <= _LAYER_SHOWN else f"{name[: _LAYER_SHOWN - 4]}...}}"


def say(what: str) -> None:
    """Say on standard error what takes the time, whoever reads it."""
    print(f"splitinfer: {what} ...", file=sys.stderr, flush=True)


class _Progress(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        print(f"splitinfer: {record.getMessage()}", file=sys.stderr, flush=True)


def show_progress() -> None:
    """Say on standard error what the package logs as ``splitinfer.progress``: what a command waits for."""
    logger = logging.getLogger("splitinfer.progress")
    logger.handlers, logger.propagate = [_Progress()], False
    logger.setLevel(logging.INFO)


class _Lines:
    """Says how far it is once ``_LINE_EVERY_S`` have passed since it last did."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._said_s = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now_s = time.monotonic()
        if now_s - self._said_s >= _LINE_EVERY_S:
            self._said_s = now_s
            print(f"splitinfer: {self._label}: {done} of {total or '?'}", file=sys.stderr, flush=True)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show progress on standard error; yields a function of (done, to do).

    A bar on a terminal; elsewhere a line now and then, so that a log shows that something goes on.
    """
    if not sys.stderr.isatty():
        yield _Lines(label)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
