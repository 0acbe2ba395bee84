"""The edge's whole run: waits for the devices, keeps the slots, runs the tails, asks the policy, tells what happens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from splitinfer.errors import DeadlineError, InputError, RemoteError
from splitinfer.graph import SplitModel
from splitinfer.runtime.description import describe_wire
from splitinfer.runtime.emulation import Clock, EmulatedClock, MakeClock
from splitinfer.runtime.events import (
    BatchReleased,
    DeviceLeft,
    DeviceLost,
    DeviceReturned,
    DidAlone,
    Ended,
    Event,
    Fanout,
    Observer,
    PeriodEnded,
    Started,
    TailServed,
    TaskDone,
    nobody,
)
from splitinfer.runtime.loop.edge import Answer, EdgeLoop, EdgeTask, RequestAssembly, UsedNumbers, row
from splitinfer.runtime.loop.hub import Hub
from splitinfer.runtime.loop.patience import Patience
from splitinfer.runtime.loop.services import fingerprints
from splitinfer.runtime.loop.settings import LoopSettings
from splitinfer.runtime.loop.ticker import Ticker
from splitinfer.runtime.loop.world import check_live, check_policy, warm_allocation
from splitinfer.runtime.settings import ServerSettings
from splitinfer.runtime.tails import RefusedRequestError, TailRunner
from splitinfer.runtime.tracing import Tracing
from splitinfer.scheduling.policy import Policy
from splitinfer.simulation.build import rule_of, setting_of
from splitinfer.simulation.identity import digest
from splitinfer.simulation.scenario import Scenario
from splitinfer.simulation.simulate import prepare
from splitinfer.simulation.surroundings import POLICY, stream
from splitinfer.wire import open_request
from splitinfer.wire import splitinfer_pb2 as pb

Floats = NDArray[np.float64]


def run_edge(
    scenario: Scenario,
    policy: Policy,
    models: Sequence[SplitModel],
    loop: LoopSettings,
    server: ServerSettings | None = None,
    *,
    make_clock: MakeClock = EmulatedClock,
    on_listen: Callable[[str], None] = lambda address: None,
    observer: Observer = nobody,
    tracing: Tracing | None = None,
) -> None:
    """Run the edge of one scenario.

    Args:
        scenario: the world.
        policy: chooses the cuts; reset here, and searched for first where it has to be.
        models: of all services.
        loop: length, seed, time.
        server: where to listen, and limits of messages.
        make_clock: the edge's processors; hardware whose speed can be set takes the emulated ones' place.
        on_listen: called with ``host:port`` once devices can come.
        observer: told what happens, on a thread of its own; every event of the run before this returns.
        tracing: writes a span of each request that carries its device's.

    Raises:
        InputError: the policy does not fit the scenario or sets resources itself, or the address cannot be listened on.
        RemoteError: a device is missing, goes away or is silent.
    """
    check_live(scenario)
    check_policy(policy, scenario)
    with Fanout().add("the run's observer", observer, most_waiting=None) as fanout:
        run = _EdgeRun(scenario, policy, models, loop, server or ServerSettings(), make_clock, fanout, tracing)
        run.run(on_listen)


class _EdgeRun:
    def __init__(
        self,
        scenario: Scenario,
        policy: Policy,
        models: Sequence[SplitModel],
        settings: LoopSettings,
        server: ServerSettings,
        make_clock: MakeClock,
        observer: Observer,
        tracing: Tracing | None,
    ) -> None:
        self._scenario = scenario
        self._policy = policy
        self._settings = settings
        self._server = server
        self._make_clock = make_clock
        self._tell = observer
        self._setting = setting = setting_of(scenario)
        self._devices = range(scenario.num_devices)
        self._fingerprints = fingerprints(scenario, models)
        self._tails = TailRunner(
            models,
            server.wire,
            tails_at_once=settings.tail_workers,
            torch_threads=settings.torch_threads,
            batch=settings.batch,
            observer=self._take_note,
            tracing=tracing,
        )
        self._assembly = RequestAssembly(
            max_message_bytes=server.limits.max_message_bytes, max_pending_bytes=settings.max_pending_bytes
        )
        shape = setting.active.shape
        self._telemetry: list[pb.Telemetry | None] = [None] * shape[0]
        # Devices that are gone: the slot from which they are back, or None.
        self._absent: dict[int, int | None] = {}
        self._arrived, self._finished = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self._alone: dict[int, list[int]] = {}  # retries, then fallbacks per service, as devices said last
        self._numbers = [UsedNumbers(settings.max_open_tasks) for _ in range(shape[0])]
        self._patience = Patience(settings.lease_s)
        self._served = threading.local()

    def run(self, on_listen: Callable[[str], None]) -> None:
        scenario, settings, setting = self._scenario, self._settings, self._setting
        self._tails.warm_batches()  # in the run itself trials would take the processors from the slots
        prepare([self._policy], scenario)
        rule = rule_of(scenario)
        warm_allocation(rule, setting)
        self._policy.reset(setting, stream(scenario, settings.seed, POLICY))
        with (
            closing(self._tails),
            # Those that wait for their turn to be computed, with others, have a thread too.
            ThreadPoolExecutor(settings.tail_workers * settings.batch, "splitinfer-tail") as processors,
            Hub(self._fingerprints, digest(scenario), self._server) as hub,
        ):
            clock = self._make_clock(
                setting.active.size, slot_s=setting.slot_s, executor=processors, wait_s=settings.patience_s
            )
            edge = EdgeLoop(setting, self._policy, clock, rule)
            on_listen(hub.address)
            hub.wait_for_all(settings.join_s)
            self._start(hub, edge)
            ticker = Ticker(time.perf_counter() + settings.starts_in_s, setting.slot_s * settings.time_scale)
            for slot in range(settings.slots + 1):
                ticker.wait(slot)
                if slot > 0:
                    self._close(hub, edge, slot - 1)
                if slot > 0 and (slot % setting.slots_per_period == 0 or slot == settings.slots):
                    self._end_period(hub, edge, slot)
                    self._take_back(hub, edge, slot, ticker)
                if slot < settings.slots:
                    edge.open_slot(slot)
                    ticker.done(slot)
            self._finish(hub, edge, clock, ticker)

    def _present(self, slot: int) -> list[int]:
        """Devices that take part in a slot."""
        back = self._absent
        return [d for d in self._devices if d not in back or ((first := back[d]) is not None and slot >= first)]

    def _lose(self, hub: Hub, edge: EdgeLoop, device: int, slot: int, error: Exception) -> None:
        """Go on without a device, where that is wanted and another is left."""
        others = [other for other in self._present(slot) if other != device]
        if self._settings.lease_s is None or not others:
            raise error
        self._absent[device] = None
        self._telemetry[device] = None
        self._numbers[device].clear()
        self._assembly.drop(device)
        hub.vacate(device, error)
        self._tell(DeviceLost(device, slot, edge.release(device), str(error)))

    def _take_back(self, hub: Hub, edge: EdgeLoop, slot: int, ticker: Ticker) -> None:
        """Tell lost devices that are there again when to begin: with the period after the coming one."""
        first = slot + self._setting.slots_per_period
        for device, back in self._absent.items():
            if back is None and first < self._settings.slots and hub.keep(device):
                self._absent[device] = first
                hub.send(device, self._start_message(edge, device, ticker.begins_s(first) - time.perf_counter(), first))
                self._tell(DeviceReturned(device, first))

    def _start_message(self, edge: EdgeLoop, device: int, starts_in_s: float, first_slot: int = 0) -> pb.EdgeMessage:
        settings = self._settings
        start = pb.Start(
            starts_in_s=max(starts_in_s, 0.0),
            slots=settings.slots,
            slot_wall_s=self._setting.slot_s * settings.time_scale,
            seed=settings.seed,
            patience_s=settings.patience_s,
            cuts=row(edge.cuts, device, self._scenario.num_services[device]),
            tolerance=self._tails.tolerance,
            first_slot=first_slot,
            **describe_wire(self._server.wire),
        )
        return pb.EdgeMessage(start=start)

    def _start(self, hub: Hub, edge: EdgeLoop) -> None:
        settings = self._settings
        for device in self._devices:
            hub.send(device, self._start_message(edge, device, settings.starts_in_s))
        self._tell(
            Started(
                scenario=self._scenario.name,
                policy=self._policy.name,
                seed=settings.seed,
                slots=settings.slots,
                slot_s=self._setting.slot_s,
                time_scale=settings.time_scale,
                patience_s=settings.patience_s,
                services=[[profile.model for profile in device] for device in self._scenario.profiles],
                num_cuts=self._setting.num_cuts.tolist(),
                tolerance=self._tails.tolerance,
                choices=_labels(self._scenario),
                targets_s=[[settings.p95_target_s] * count for count in self._scenario.num_services]
                if settings.p95_target_s is not None
                else [],
            )
        )

    def _close(self, hub: Hub, edge: EdgeLoop, slot: int) -> None:
        """Close a slot: what was done here is answered, and what has come over the link enters its queue."""
        messages: dict[int, pb.Slot] = {}
        due_s = time.perf_counter()
        for device in self._present(slot):
            try:
                messages[device] = self._next_slot(hub, device, slot)
            except RemoteError as error:
                self._lose(hub, edge, device, slot, error)
        slowest = self._patience.lost_with({device: hub.came_s(device) for device in messages}, due_s)
        if slowest is not None:
            why = f"device {slowest} holds the others up: most of the time everybody waits for it"
            self._lose(hub, edge, slowest, slot, DeadlineError(why, status="DEADLINE_EXCEEDED"))
            del messages[slowest]
        for device, message in list(messages.items()):
            try:
                self._note(device, message)
            except RemoteError as error:
                self._lose(hub, edge, device, slot, error)
                del messages[device]
        for task, answer in edge.close_slot():
            if isinstance(answer, Exception):
                self._lose(hub, edge, task.device, slot, answer)
                continue
            if task.device not in messages:  # lost meanwhile
                continue
            result = pb.Result(task=task.number, service=task.service, finish_slot=slot, reply=answer.reply)
            if self._send(hub, edge, task.device, slot, pb.EdgeMessage(result=result)):
                self._task_event(task, slot, answer.batch)
            else:
                del messages[task.device]
        for device, message in messages.items():
            try:
                for piece in message.pieces:
                    self._take_piece(edge, device, piece, slot)
            except RemoteError as error:
                self._lose(hub, edge, device, slot, error)
        while (fullest := self._assembly.fullest()) is not None:
            most = self._settings.max_pending_bytes
            why = f"more than {most} bytes of requests wait (max_pending_bytes), most of them device {fullest}'s"
            self._lose(hub, edge, fullest, slot, RemoteError(why, status="RESOURCE_EXHAUSTED"))

    def _send(self, hub: Hub, edge: EdgeLoop, device: int, slot: int, message: pb.EdgeMessage) -> bool:
        """Hand over a message for a device; one that reads nothing is lost, and False is returned."""
        try:
            hub.send(device, message)
        except RemoteError as error:
            self._lose(hub, edge, device, slot, error)
            return False
        return True

    def _next_slot(self, hub: Hub, device: int, slot: int) -> pb.Slot:
        """Return a device's message of a slot, which decides cuts and figures: everything in it has to make sense.

        Raises:
            RemoteError: something does not; the message names the device.
        """
        message = hub.slot(device, slot, self._settings.lease_s or self._settings.silence_s)
        services = self._scenario.num_services[device]
        wrong = ""
        if len(message.under_way) not in (0, services):
            wrong = f"tasks under way of {len(message.under_way)} services; it has {services}"
        elif message.under_way and self._absent.get(device) != slot:
            wrong = f"tasks under way in slot {slot}, in which it does not come back"
        if len(message.arrived) not in (0, services):
            wrong = f"counts of {len(message.arrived)} services; it has {services}"
        for done in message.finished:
            if done.service >= services or done.cut > self._setting.num_cuts[device, done.service]:
                wrong = f"a finished task of service {done.service} at cut {done.cut}, which it has not"
            elif done.arrival_slot >= max(slot, 1) or not self._is_new(device, done.task):
                wrong = f"task {done.task} finished twice, or before it came"
        if message.HasField("telemetry"):
            sent = message.telemetry
            rows = sent.local_queue_cycles, sent.transmission_queue_bits, sent.local_frequency_hz, sent.rate_bps
            scalars = sent.power_w, sent.max_rate_bps, sent.local_energy_j, sent.transmission_energy_j
            if any(len(each) != services for each in rows):
                wrong = f"telemetry of another number of services than {services}"
            elif not _are_sane(scalars, *rows):
                wrong = f"telemetry with numbers that are not finite, below 0 or above {_MOST:g}"
            elif not 0 < sent.slots <= self._setting.slots_per_period:
                wrong = f"telemetry of {sent.slots} slots"
        if message.HasField("alone") and len(message.alone.fallbacks) != services:
            wrong = f"fallbacks of {len(message.alone.fallbacks)} services; it has {services}"
        elif message.HasField("alone") and device not in self._absent:
            wrong = "what it did alone, and was here all the time"
        if wrong:
            raise RemoteError(f"device {device} sends {wrong}", status="INVALID_ARGUMENT")
        return message

    def _is_new(self, device: int, number: int) -> bool:
        """Whether a device uses a task's number for the first time; takes note of it.

        Raises:
            RemoteError: its numbers have too many gaps.
        """
        try:
            return self._numbers[device].add(number)
        except InputError as error:
            raise RemoteError(f"device {device} leaves {error}", status="RESOURCE_EXHAUSTED") from None

    def _take_piece(self, edge: EdgeLoop, device: int, piece: pb.TaskPiece, slot: int) -> None:
        services = self._scenario.num_services[device]
        if piece.service >= services or piece.cut >= self._setting.num_cuts[device, piece.service]:
            raise RemoteError(
                f"device {device} sends a task of service {piece.service} at cut {piece.cut}, which has no tail",
                status="INVALID_ARGUMENT",
            )
        if piece.arrival_slot > slot:
            raise RemoteError(f"device {device} sends a task before it came", status="INVALID_ARGUMENT")
        task = EdgeTask(device, piece.service, piece.task, piece.cut, piece.arrival_slot)
        try:
            request = self._assembly.add(task, piece.byte_offset, piece.message_bytes, piece.data)
        except InputError as error:
            raise RemoteError(str(error), status="INVALID_ARGUMENT") from None
        if piece.byte_offset == 0 and not self._is_new(device, piece.task):
            raise RemoteError(f"device {device} uses number {piece.task} for two tasks", status="INVALID_ARGUMENT")
        if request is not None:
            try:
                head = open_request(request, self._server.wire).head
            except InputError as error:
                raise RemoteError(f"device {device}, task {piece.task}: {error}", status="INVALID_ARGUMENT") from None
            cut = self._scenario.choices[device][piece.service][piece.cut].cut
            split = self._tails.models[self._scenario.profiles[device][piece.service].model].split
            if (head.fingerprint, head.cut) != (split.fingerprint_at(cut), cut):
                raise RemoteError(
                    f"device {device}, task {piece.task}: the request is for another model or cut than its pieces say",
                    status="INVALID_ARGUMENT",
                )
            edge.admit(task, lambda: self._run_tail(task, request))

    def _take_note(self, event: Event) -> None:
        """Of what the tails tell, on their own threads."""
        if isinstance(event, BatchReleased):
            self._tell(event)
        elif isinstance(event, TailServed):
            self._served.batch = event.batch

    def _run_tail(self, task: EdgeTask, request: bytes) -> Answer | Exception:
        try:
            reply = self._tails.answer(request)
            answer: Answer | Exception = Answer(reply, self._served.batch)
        except RefusedRequestError as refused:
            answer = refused.reason  # looked at where the slot is closed: it is this device's fault alone
        self._assembly.release(task)
        return answer

    def _note(self, device: int, message: pb.Slot) -> None:
        """What the slot before ``message.slot`` brought at the device.

        Raises:
            RemoteError: its tasks do not add up.
        """
        if len(message.arrived):
            self._arrived[device, : len(message.arrived)] += np.asarray(message.arrived)
        for done in message.finished:
            task = EdgeTask(device, done.service, done.task, done.cut, done.arrival_slot)
            self._task_event(task, message.slot - 1)
        if len(message.under_way):  # whatever came and was finished where nobody heard of it
            rows = np.s_[device, : len(message.under_way)]
            self._arrived[rows] = self._finished[rows] + np.asarray(message.under_way)
        open_tasks = (self._arrived[device] - self._finished[device]).tolist()
        if min(open_tasks) < 0:
            raise RemoteError(f"device {device} finishes more tasks than came to it", status="INVALID_ARGUMENT")
        if sum(open_tasks) > (most := self._settings.max_open_tasks):
            why = f"device {device} has {sum(open_tasks):,} open tasks, more than {most:,} (max_open_tasks)"
            raise RemoteError(why, status="RESOURCE_EXHAUSTED")
        if message.HasField("telemetry"):
            self._telemetry[device] = message.telemetry
        if message.HasField("alone"):
            self._note_alone(device, message)

    def _note_alone(self, device: int, message: pb.Slot) -> None:
        """Tell what a device did alone since it last said so; one that counts less than before has begun anew."""
        counts = [message.alone.retries, *message.alone.fallbacks]
        before = self._alone.get(device, [0] * len(counts))
        self._alone[device] = counts
        if all(now >= then for now, then in zip(counts, before, strict=True)):
            counts = [now - then for now, then in zip(counts, before, strict=True)]
        self._tell(DidAlone(device, message.slot, counts[0], counts[1:]))

    def _task_event(self, task: EdgeTask, finish_slot: int, batch: int = 0) -> None:
        self._finished[task.device, task.service] += 1
        self._tell(TaskDone(task.device, task.service, task.cut, task.arrival_slot, finish_slot, batch))

    def _end_period(self, hub: Hub, edge: EdgeLoop, slot: int) -> None:
        """Put the means of the period together, ask the policy for the next one, and tell the devices."""
        is_last = slot == self._settings.slots
        for device in self._present(slot - 1):
            if self._telemetry[device] is None:
                error = f"device {device} sent no telemetry for the period before slot {slot}"
                self._lose(hub, edge, device, slot, RemoteError(error, status="INTERNAL"))
        known = [message.max_rate_bps for message in self._telemetry if message is not None]
        period = edge.end_period(
            [
                # Nothing waits at a device that is gone, and what is computed of its channel stays finite.
                pb.Telemetry(max_rate_bps=max(known, default=1.0)) if message is None else message
                for message in self._telemetry
            ]
        )
        self._telemetry = [None] * len(self._devices)
        if not is_last:
            cuts = edge.choose_cuts(period)
            for device in self._present(slot):
                chosen = pb.Cuts(from_slot=slot, cuts=row(cuts, device, self._scenario.num_services[device]))
                self._send(hub, edge, device, slot, pb.EdgeMessage(cuts=chosen))
        self._tell(PeriodEnded.of(period, first_slot=slot - period.slots))

    def _finish(self, hub: Hub, edge: EdgeLoop, clock: Clock, ticker: Ticker) -> None:
        slots = self._settings.slots
        for device in self._present(slots):
            try:
                self._note(device, self._next_slot(hub, device, slots))
                hub.send(device, pb.EdgeMessage(finish=pb.Finish()))
            except RemoteError as error:
                self._lose(hub, edge, device, slots, error)
        for device in self._present(slots):
            try:
                farewell = hub.farewell(device, self._settings.lease_s or self._settings.silence_s)
                if not _are_sane(
                    (farewell.late_s, farewell.worst_late_s, farewell.host_s), np.asarray(farewell.wall_latency_s)
                ):
                    why = f"device {device} leaves with times that are not finite, below 0 or above {_MOST:g}"
                    raise RemoteError(why, status="INVALID_ARGUMENT")
                if device not in self._absent and len(farewell.wall_latency_s) > self._finished[device].sum():
                    why = f"device {device} leaves with latencies of more tasks than it finished"
                    raise RemoteError(why, status="INVALID_ARGUMENT")
            except RemoteError as error:
                self._lose(hub, edge, device, slots, error)
                continue
            fields = ("checked", "wrong", "unanswered", "unexpected", "slot_overruns", "late_cuts")
            self._tell(
                DeviceLeft(
                    device,
                    **{name: getattr(farewell, name) for name in fields},
                    shortfall={
                        "jobs": farewell.jobs,
                        "late_jobs": farewell.late_jobs,
                        "late_slots": farewell.late_slots,
                        "late_s": farewell.late_s,
                        "worst_s": farewell.worst_late_s,
                        "host_s": farewell.host_s,
                    },
                    wall_latency_s=list(farewell.wall_latency_s),
                )
            )
        self._tell(
            Ended(
                arrived=self._arrived.tolist(),  # type: ignore[arg-type]
                slot_overruns=ticker.overruns,
                worst_lag_s=ticker.worst_lag_s,
                shortfall=dict(vars(clock.shortfall)),
            )
        )


_MOST = 1e18
"""No queue in cycles or bits, frequency, rate or time of a device comes near it; what is computed from it is finite."""


def _are_sane(*numbers: Sequence[float] | Floats) -> bool:
    # A number that is none is in no range.
    return all(np.min(each, initial=0.0) >= 0 and np.max(each, initial=0.0) <= _MOST for each in numbers)


def _labels(scenario: Scenario) -> list[list[list[str]]]:
    """What each service's cuts stand for, where they are not simply cuts."""
    if scenario.has_plain_cuts:
        return []
    return [[list(map(str, own)) for own in device] for device in scenario.choices]
