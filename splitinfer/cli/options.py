"""Options that several verbs share, written once, and the scenario that they describe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitinfer.policies import POLICY_HELP
from splitinfer.threads import MAX_THREADS

if TYPE_CHECKING:
    from splitinfer.simulation import Scenario

MAX_SEEDS = 100_000
"""Most runs of one world that a comparison is made of."""

ScenarioName = Annotated[str, typer.Option(help="A preset (table2, busy, xr, drifting) or a TOML file.")]
PolicyName = Annotated[str, typer.Option(help=POLICY_HELP)]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a field of the scenario.")
]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine", help="What computes halves here: torch, or to 1e-4 onnxruntime (extra [onnx]) or executorch."
    ),
]
Allocation = Annotated[
    str | None,
    typer.Option(help="drift-plus-penalty (the paper's), price, or your own package.module:Class."),
]
LatencyPrice = Annotated[
    float | None, typer.Option(metavar="W", help="Joules that a second of one task's latency is worth, for price.")
]
DeviceName = Annotated[
    str | None, typer.Option(metavar="CARD", help="Device card: see splitinfer devices; CARD:RADIO takes its radio.")
]
Cards = Annotated[
    list[Path] | None, typer.Option("--card", metavar="FILE", help="Card file of a model that is not shipped.")
]
Images = Annotated[Path | None, typer.Option(help="A picture, or a folder of them, to run on; one photo by default.")]
Threads = Annotated[int, typer.Option(min=1, max=MAX_THREADS, help="Threads inside one operation.")]
Batch = Annotated[
    int,
    typer.Option(
        help="Most requests for one tail that the edge computes together: 1 (off), 2, 4, 8, 16 or 32. Answers are then "
        "equal to rounding, not to the bit."
    ),
]
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
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")]
MaxMessageMib = Annotated[int, typer.Option(min=1, help="Largest message taken, MiB.")]
DrainS = Annotated[float, typer.Option(help="Seconds that calls get to finish when stopping.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Listen beyond this machine in plain text.")]

ServerCert = Annotated[
    str | None, typer.Option("--tls-cert", metavar="FILE", help="This server's certificate: encrypts (TLS).")
]
ClientCert = Annotated[
    str | None, typer.Option("--tls-cert", metavar="FILE", help="This device's certificate, if the edge wants one.")
]
TlsKey = Annotated[str | None, typer.Option("--tls-key", metavar="FILE", help="The key of --tls-cert.")]
ClientCa = Annotated[
    str | None,
    typer.Option("--client-ca", metavar="FILE", help="CA whose certificate every client must have (mutual TLS)."),
]
TlsCa = Annotated[
    str | None,
    typer.Option("--tls-ca", metavar="FILE", help="CA that the edge's certificate comes from, or system: TLS."),
]
TokenFile = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="TOKEN or NAME TOKEN a line; SPLITINFER_TOKEN in the environment without."),
]

OtlpEndpoint = Annotated[
    str | None,
    typer.Option(
        "--otlp",
        metavar="URL",
        help="Send OpenTelemetry traces there: http://HOST:4317 (extra [otel]).",
    ),
]
OnFailureName = Annotated[
    str,
    typer.Option(
        "--on-failure",
        metavar="fallback|wait|fail",
        help="What follows when the edge is gone, late or refuses: finish here, wait for it, or fail.",
    ),
]
SlotsOnFailure = Annotated[
    str,
    typer.Option(
        "--on-failure",
        metavar="fallback|fail",
        help="What follows when the edge is gone: finish here until it takes the device back, or fail.",
    ),
]
WebPort = Annotated[
    int | None,
    typer.Option(min=0, max=65535, metavar="P", help="Show a live page at http://127.0.0.1:P/; extra [web]."),
]
P95Target = Annotated[
    float | None,
    typer.Option(metavar="S", help="p95 that page and top hold every service to, seconds; steers nothing."),
]
LogForm = Annotated[
    str | None,
    typer.Option("--log", metavar="text|json", help="Say every request and refusal on standard error."),
]
MetricsPort = Annotated[
    int | None,
    typer.Option(min=0, max=65535, metavar="P", help="Answer Prometheus at http://HOST:P/metrics; TLS as the edge."),
]


def scenario_from(
    name: str,
    changes: list[str] | None,
    *,
    allocation: str | None = None,
    latency_price: float | None = None,
    device: str | None = None,
) -> Scenario:
    """Return the scenario that a verb's options describe; what is None stays as the scenario has it.

    Raises:
        InputError: there is no such scenario, or a value is wrong.
    """
    from splitinfer.simulation import find_scenario, with_settings

    world = with_settings(find_scenario(name), changes or [])
    given = {"allocation": allocation, "latency_price_w": latency_price, "device": device}
    chosen = {field: value for field, value in given.items() if value is not None}
    return world.replace(**chosen) if chosen else world
