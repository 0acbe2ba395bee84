"""What the live view shows after some events."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

from rich.console import Console

from splitinfer.cli.live_view import LiveView
from splitinfer.runtime.events import Ended, PeriodEnded, Started, TaskDone


def test_the_table_follows_the_events():
    view = LiveView()
    services = {"services": [["resnet18", "other"]], "num_cuts": [[20, 9]]}
    start = {"scenario": "tiny", "policy": "fixed", "seed": 0, "slots": 200, "slot_s": 0.01}
    view.add(Started(**start, time_scale=1.0, patience_s=0.0, **services))
    view.add(TaskDone(device=0, service=0, cut=4, arrival_slot=3, finish_slot=10))
    period = PeriodEnded(
        first_slot=90,
        slots=10,
        cuts=[[4, 9]],
        backlog=[[[2.5e6, 0.0]], [[3.4e3, 0.0]], [[5.1e6, 0.0]]],
        service_rate=[[[6e8, 0.0]], [[7.8e4, 0.0]], [[0.0, 0.0]]],
        power_w=[0.123],
        max_rate_bps=[3e6],
        local_energy_j=[0.001],
        transmission_energy_j=[0.002],
    )
    view.add(period)
    view.add(replace(period, first_slot=100))
    page = StringIO()
    Console(file=page, width=140).print(view.table())
    shown = page.getvalue()
    assert "tiny, policy fixed: 1.1 of 2 s" in shown
    first = next(line for line in shown.splitlines() if "resnet18" in line).replace("│", " ").split()
    assert first == ["0", "resnet18", "4/20", "2.5", "3.4", "5.1", "600", "78", "123", "60", "1", "80"]


def test_without_a_terminal_nothing_is_shown(capsys):
    with LiveView() as view:
        view.add(Ended(arrived=[[0]], slot_overruns=0, worst_lag_s=0.0, shortfall={}))
    assert capsys.readouterr() == ("", "")
