"""Options that several verbs share, written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from splitinfer.policies import POLICY_HELP

ScenarioName = Annotated[str, typer.Option(help="A preset (table2, busy, xr, drifting) or a TOML file.")]
PolicyName = Annotated[str, typer.Option(help=POLICY_HELP)]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a field of the scenario.")
]
Cards = Annotated[
    list[Path] | None, typer.Option("--card", metavar="FILE", help="Card file of a model that is not shipped.")
]
Images = Annotated[Path | None, typer.Option(help="Folder of pictures to run on; one photo by default.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads inside one operation.")]
Seed = Annotated[int, typer.Option(min=0, help="Of arrivals and channel, as in simulate.")]
TimeScale = Annotated[
    float, typer.Option(help="Real time per scenario time; 0.1 is ten times faster, where the machine allows.")
]
PatienceS = Annotated[
    float,
    typer.Option(help="Let time stand still this long for late work, instead of carrying it into later slots."),
]
Duration = Annotated[float, typer.Option(help="Length of the run, seconds of the scenario's time.")]
TraceFile = Annotated[Path | None, typer.Option(metavar="FILE", help="Write every event as a line of JSON.")]
PlotFile = Annotated[Path | None, typer.Option(help="Draw queues, cuts, frequency and power over time.")]
CompareRun = Annotated[bool, typer.Option("--compare", help="Simulate the same run too, and show both.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
MeterName = Annotated[
    str, typer.Option(help="Also measure what this whole host spends: rapl or nvml; auto takes what there is.")
]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.")]
MaxMessageMib = Annotated[int, typer.Option(min=1, help="Largest message taken, MiB.")]
DrainS = Annotated[float, typer.Option(help="Seconds that calls get to finish when stopping.")]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Listen beyond this machine, unencrypted and open to everyone.")
]
