"""Who follows a live run from the command line: the view on the terminal, the trace file, the host's meter."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from splitinfer.cli.live_view import LiveView
from splitinfer.errors import InputError
from splitinfer.runtime.events import Ended, Event, Fanout, PeriodEnded, Started

if TYPE_CHECKING:
    from splitinfer.energy.meter import EnergyMeter


@contextmanager
def watching(trace: Path | None, readings_j: list[float], meter: EnergyMeter | None = None) -> Iterator[Fanout]:
    """Follow a run in this block with what the yielded fan-out is told.

    Args:
        trace: file that gets every event as a line of JSON.
        readings_j: takes the meter's reading at the start and at the end of the run.
        meter: of what this host spends.

    Raises:
        InputError: the trace file cannot be written.
    """
    try:
        file = None if trace is None else trace.open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"--trace: cannot write {trace}: {error.strerror}") from None

    failed: list[OSError] = []

    def write(event: Event) -> None:
        assert file is not None
        if failed:
            return
        try:
            file.write(json.dumps(event.to_dict()) + "\n")
            if isinstance(event, (PeriodEnded, Ended)):
                file.flush()  # what is over is kept, however this process ends
        except OSError as error:  # the run goes on, and its report is worth more than its trace
            failed.append(error)
            print(f"--trace: {trace} ends here: {error.strerror}", file=sys.stderr, flush=True)

    def read_meter(event: Event) -> None:
        if meter is not None and isinstance(event, (Started, Ended)):
            readings_j.append(meter.joules())

    try:
        with LiveView() as view, Fanout() as fanout:
            fanout.add("the view", view.add)
            if meter is not None:
                fanout.add("the meter", read_meter, most_waiting=None)
            if file is not None:
                fanout.add("the trace file", write, most_waiting=None)
            yield fanout
    finally:
        if file is not None:
            with contextlib.suppress(OSError):  # said above; a full disk refuses what is left, too
                file.close()
