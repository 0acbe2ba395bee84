"""A live run on this machine: one process for the edge and one for each device."""

from __future__ import annotations

import queue
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from splitinfer.errors import DeadlineError, EdgeUnavailableError
from splitinfer.policies import named_policy
from splitinfer.runtime.loop.children import Child, raised_error
from splitinfer.runtime.loop.record import LiveRecord
from splitinfer.runtime.loop.settings import LoopSettings
from splitinfer.runtime.loop.world import check_live
from splitinfer.simulation.scenario import Scenario

Event = dict[str, Any]

_STOP_S = 10.0


def run_locally(
    scenario: Scenario,
    policy: str,
    settings: LoopSettings,
    *,
    cards: Mapping[str, str] | None = None,
    images: Sequence[Path] = (),
    port: int = 0,
    on_event: Callable[[Event], None] = lambda event: None,
) -> LiveRecord:
    """Run a scenario on real processes.

    Args:
        scenario: the world.
        policy: by name, as ``named_policy`` takes it.
        settings: length, seed, time.
        cards: card files by model name, for models that are no shipped cards.
        images: pictures for the models; random inputs without.
        port: of the edge; 0 picks a free one.
        on_event: called with every event (``record.py``), for a live view or a trace file.

    Returns:
        The record of the whole run.

    Raises:
        ScenarioError, InputError: something in the scenario, policy or models is wrong.
        RemoteError: a process is lost or silent.
    """
    check_live(scenario)
    named_policy(policy, scenario)  # a wrong name is said before anything is started
    record = LiveRecord()
    said: queue.SimpleQueue[tuple[str, Event | None]] = queue.SimpleQueue()
    children: list[Child] = []
    with tempfile.TemporaryDirectory(prefix="splitinfer-run-") as folder:
        file = Path(folder) / "scenario.toml"
        scenario.save(file)
        common = {
            "scenario": str(file),
            "cards": {name: str(Path(path).resolve()) for name, path in (cards or {}).items()},
        }
        try:
            order = common | {"policy": policy, "loop": asdict(settings), "port": port}
            threads = settings.torch_threads
            children.append(Child("splitinfer.runtime.loop.edge_child", order, "edge", said, threads=threads))
            for device in range(scenario.num_devices):
                order = common | {"device": device, "images": [str(image) for image in images], "threads": threads}
                children.append(
                    Child("splitinfer.runtime.loop.device_child", order, f"device {device}", said, threads=threads)
                )
            _follow(children, said, record, settings, on_event)
        except BaseException:
            for child in children:
                child.kill()
            raise
        finally:
            for child in children:
                child.stop(_STOP_S)
    return record


def _follow(
    children: list[Child],
    said: queue.SimpleQueue[tuple[str, Event | None]],
    record: LiveRecord,
    settings: LoopSettings,
    on_event: Callable[[Event], None],
) -> None:
    patience_s = settings.join_s
    while not record.is_complete:
        try:
            who, event = said.get(timeout=patience_s)
        except queue.Empty:
            raise DeadlineError(
                f"the run's processes said nothing for {patience_s:g} s", status="DEADLINE_EXCEEDED"
            ) from None
        if event is None:
            raise EdgeUnavailableError(f"the process of {who} ended before the run did", status="UNAVAILABLE")
        kind = event["event"]
        if kind == "error":
            raise raised_error(event, who)
        if kind == "listen":
            for child in children[1:]:
                child.tell(event["address"])
        elif who == "edge":
            record.add(event)
            on_event(event)
