"""Live runs on this machine: one process for the edge and one for each device."""

from __future__ import annotations

import json
import logging
import queue
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from splitinfer.errors import DeadlineError, EdgeUnavailableError, InputError
from splitinfer.graph.engines import checked_engine
from splitinfer.models.options import CaptureOptions
from splitinfer.policies import named_policy
from splitinfer.runtime.child import Child, raised_error
from splitinfer.runtime.events import Observer, nobody, read_event
from splitinfer.runtime.loop.record import LiveRecord
from splitinfer.runtime.loop.settings import LoopSettings
from splitinfer.runtime.loop.world import check_live, check_models, check_policy, check_slots_go_on
from splitinfer.runtime.perseverance import OnFailure
from splitinfer.runtime.tracing import check_endpoint
from splitinfer.simulation.scenario import Scenario

Said = dict[str, Any]

_STOP_S = 10.0


def run_locally(
    scenario: Scenario,
    policy: str,
    settings: LoopSettings,
    *,
    cards: Mapping[str, str] | None = None,
    images: Sequence[Path] = (),
    port: int = 0,
    engine: str = "torch",
    on_failure: OnFailure = "fail",
    otlp: str | None = None,
    observer: Observer = nobody,
    before: Callable[[LocalProcesses, str, LoopSettings], LoopSettings] | None = None,
) -> LiveRecord:
    """Run a scenario on real processes, once. ``LocalProcesses`` makes several runs without loading the models again.

    Args:
        scenario: the world.
        policy: by name, as ``named_policy`` takes it.
        settings: length, seed, time.
        cards: card files by model name, for models that are no shipped cards.
        images: pictures for the models; random inputs without.
        port: of the edge; 0 picks a free one.
        engine: what computes halves.
        on_failure: of the devices, as :func:`run_device` takes it.
        otlp: collector of OpenTelemetry spans, as ``tracing_to`` takes it.
        observer: told every event, for a live view or a trace file.
        before: called once the processes are there, to try them; returns the settings to run with.

    Returns:
        The record of the whole run.

    Raises:
        ScenarioError, InputError: something in the scenario, policy or models is wrong.
        RemoteError: a process is lost or silent.
    """
    check_live(scenario)
    check_policy(named_policy(policy, scenario), scenario)  # a wrong name is said before anything is started
    check_models(scenario, cards or {})
    check_slots_go_on(on_failure)
    checked_engine(engine)
    threads = settings.torch_threads
    logging.getLogger("splitinfer.progress").info(
        "starting an edge, devices: %d, each to capture its models ...", scenario.num_devices
    )
    with LocalProcesses(
        scenario,
        cards=cards,
        images=images,
        port=port,
        torch_threads=threads,
        engine=engine,
        on_failure=on_failure,
        otlp=otlp,
    ) as processes:
        if before is not None:
            settings = before(processes, policy, settings)
        return processes.run(policy, settings, observer=observer)


class LocalProcesses:
    """An edge and the devices of a scenario as processes of this machine, for one run after the other.

    A context manager. Starting and loading the models takes seconds, a further run next to nothing. After an error the
    processes are gone.

    Args:
        scenario: the world.
        cards: card files by model name, for models that are no shipped cards.
        images: pictures for the models; random inputs without.
        port: of the edge; 0 picks a free one for each run.
        torch_threads: threads inside one operation.
        engine: what computes halves.
        on_failure: of the devices: with ``fallback`` they finish a run whose edge is gone, before that is raised.
        otlp: collector of OpenTelemetry spans, as ``tracing_to`` takes it.

    Raises:
        MissingExtraError: OpenTelemetry is not installed.
        InputError: it is neither ``fallback`` nor ``fail``.
        ScenarioError: a field is in the way of a live run.
    """

    def __init__(
        self,
        scenario: Scenario,
        *,
        cards: Mapping[str, str] | None = None,
        images: Sequence[Path] = (),
        port: int = 0,
        torch_threads: int = 1,
        engine: str = "torch",
        on_failure: OnFailure = "fail",
        otlp: str | None = None,
    ) -> None:
        check_live(scenario)
        check_slots_go_on(on_failure)
        check_models(scenario, cards or {})
        checked_engine(engine)
        check_endpoint(otlp)
        self._scenario = scenario
        self._threads = torch_threads
        self._common = {
            "cards": {name: str(Path(path).resolve()) for name, path in (cards or {}).items()},
            "options": CaptureOptions(threads=torch_threads, engine=engine).to_dict(),
            "otlp": otlp,
        }
        self._of_devices = {"images": [str(image) for image in images], "on_failure": on_failure}
        self._port = port
        self._said: queue.SimpleQueue[tuple[str, Said | None]] = queue.SimpleQueue()
        self._children: list[Child] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def scenario(self) -> Scenario:
        """The world."""
        return self._scenario

    def __enter__(self) -> LocalProcesses:
        self._folder = tempfile.TemporaryDirectory(prefix="splitinfer-run-")
        file = Path(self._folder.name) / "scenario.toml"
        self._scenario.save(file)
        common = self._common | {"scenario": str(file)}
        try:
            self._start("edge_child", "edge", common | {"port": self._port})
            for device in range(self._scenario.num_devices):
                self._start("device_child", f"device {device}", common | {"device": device} | self._of_devices)
        except BaseException:
            self._stop(at_once=True)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._stop(at_once=error is not None)

    def run(self, policy: str, settings: LoopSettings, *, observer: Observer = nobody) -> LiveRecord:
        """Run the scenario once.

        Args:
            policy: by name, as ``named_policy`` takes it.
            settings: length, seed, time; ``torch_threads`` are those of the processes.
            observer: told every event.

        Returns:
            The record of the whole run.

        Raises:
            InputError: something in the policy or models is wrong, or the processes are gone.
            RemoteError: a process is lost or silent.
        """
        if not self._children:
            raise InputError("the processes of this live run are gone")
        if settings.torch_threads != self._threads:
            raise InputError(f"torch_threads: these processes have {self._threads}, not {settings.torch_threads}")
        check_policy(named_policy(policy, self._scenario), self._scenario)
        record = LiveRecord()
        try:
            self._children[0].tell(json.dumps({"policy": policy, "loop": asdict(settings)}))
            is_whole = self._follow(record, settings, observer)
        except BaseException:
            self._stop(at_once=True)
            raise
        if not is_whole:
            self._stop(at_once=True)
        return record

    def _start(self, module: str, who: str, order: Said) -> None:
        module = f"splitinfer.runtime.loop.{module}"
        self._children.append(Child(module, order, who, self._said, threads=self._threads))

    def _stop(self, *, at_once: bool) -> None:
        for child in self._children if at_once else ():
            child.kill()
        for child in self._children:
            child.stop(_STOP_S)
        self._children = []
        if self._folder is not None:
            self._folder.cleanup()

    def _follow(self, record: LiveRecord, settings: LoopSettings, observer: Observer) -> bool:
        """Take note of a run until it is over; return whether every process is still there."""
        patience_s = settings.join_s
        lost: set[str] = set()
        while not record.is_complete:
            try:
                who, said = self._said.get(timeout=patience_s)
            except queue.Empty:
                raise DeadlineError(
                    f"the run's processes said nothing for {patience_s:g} s", status="DEADLINE_EXCEEDED"
                ) from None
            if said is None and who == "edge" and record.start and self._of_devices["on_failure"] == "fallback":
                raise self._edge_lost(settings, lost)
            if said is None and who != "edge" and record.start and settings.lease_s is not None:
                lost.add(who)  # the edge notices too, and goes on without it
                continue
            if said is None:
                raise EdgeUnavailableError(f"the process of {who} ended before the run did", status="UNAVAILABLE")
            kind = said["event"]
            if kind == "error":
                raise raised_error(said, who)
            if kind == "listen":
                for child in self._children[1:]:
                    child.tell(said["address"])
            elif who == "edge":
                event = read_event(said)
                record.add(event)
                observer(event)
        return not lost

    def _edge_lost(self, settings: LoopSettings, lost: set[str]) -> EdgeUnavailableError:
        """Wait until the devices have finished the run alone; return what there is to say of it."""
        left = {child.who for child in self._children[1:]} - lost
        alone: list[Said] = []
        patience_s = settings.silence_s + settings.slots * self._scenario.slot_s * settings.time_scale
        while left:
            try:
                who, said = self._said.get(timeout=patience_s)
            except queue.Empty:
                break
            if said is None or said["event"] == "error":
                left.discard(who)
            elif said["event"] == "farewell" and said["is_alone"]:
                left.discard(who)
                alone.append(said)
        checked, wrong, unanswered = (sum(said[of] for said in alone) for of in ("checked", "wrong", "unanswered"))
        return EdgeUnavailableError(
            f"the process of the edge ended before the run did; {len(alone)} of {len(self._children) - 1} devices "
            f"finished it alone: {checked} answers checked, {wrong} wrong, {unanswered} tasks under way at the end",
            status="UNAVAILABLE",
        )
