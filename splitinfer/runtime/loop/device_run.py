"""A device's whole run: slot after slot over real time, against an edge at the other end of a stream."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from splitinfer.errors import DeadlineError, InputError, RemoteError
from splitinfer.runtime.description import read_codecs
from splitinfer.runtime.emulation import EmulatedClock, EmulatedLink, MakeClock, MakeLink, Piece
from splitinfer.runtime.exchange import Exchange
from splitinfer.runtime.loop.attendance import Attendance
from splitinfer.runtime.loop.device import Closed, DeviceLoop, Service
from splitinfer.runtime.loop.settings import LONGEST_S
from splitinfer.runtime.loop.telemetry import to_message
from splitinfer.runtime.loop.ticker import Ticker
from splitinfer.runtime.loop.world import DeviceWorld, check_live, check_slots_go_on, warm_allocation
from splitinfer.runtime.perseverance import OnFailure
from splitinfer.runtime.security import ClientSecurity
from splitinfer.runtime.settings import ClientSettings
from splitinfer.runtime.tracing import Tracing
from splitinfer.scheduling.period import Period
from splitinfer.simulation.build import rule_of, setting_of
from splitinfer.simulation.identity import digest
from splitinfer.simulation.scenario import Scenario
from splitinfer.wire import MAX_PROTOCOL_VERSION, WireLimits
from splitinfer.wire import splitinfer_pb2 as pb

RETURN_S = 1.0
"""How long a device that works alone waits for an answer of its edge, and between two tries, seconds."""


@dataclass(frozen=True)
class DeviceTimes:
    """How long a device waits for its edge, seconds of the wall clock.

    Attributes:
        connect_s: for the server to answer.
        join_s: for the other devices.
        silence_s: for the edge to finish after the last slot, and for its cuts where the device can do without it.
    """

    connect_s: float = 60.0
    join_s: float = 300.0
    silence_s: float = 60.0


def run_device(
    target: str,
    scenario: Scenario,
    device: int,
    services: Sequence[Service],
    *,
    limits: WireLimits | None = None,
    security: ClientSecurity | None = None,
    on_failure: OnFailure = "fail",
    on_alone: Callable[[int, int, RemoteError], None] = lambda slot, tasks, error: None,
    on_return: Callable[[int], None] = lambda slot: None,
    times: DeviceTimes | None = None,
    tracing: Tracing | None = None,
    make_clock: MakeClock = EmulatedClock,
    make_link: MakeLink = EmulatedLink,
    on_start: Callable[[pb.Start], None] = lambda start: None,
    on_period: Callable[[int, Period, Sequence[int]], None] = lambda slot, means, cuts: None,
) -> pb.Farewell:
    """Attend a run as one device.

    Args:
        target: ``host:port`` of the edge.
        scenario: the edge's own scenario.
        device: m.
        services: the device's models.
        limits: of messages.
        security: TLS, and what the device shows of itself.
        on_failure: what follows when the edge goes away during the run: ``fail``, or ``fallback``: the device finishes
            the run by itself, with every cut at the last and the tails of stranded tasks in its own queues, until the
            edge takes it back (``LoopSettings.lease_s``).
        on_alone: called when it begins to, with the slot, the number of stranded tasks, and why.
        on_return: called when the edge has taken it back, with the first slot.
        times: how long to wait.
        tracing: writes a span of each task.
        make_clock: the device's processor; one with a settable frequency takes the emulated one's place.
        make_link: its radio, likewise.
        on_start: called when every device is there.
        on_period: called after each period with the slot that follows it, its means and the cuts in force.

    Returns:
        What this device alone knows of the run; the edge has it too.

    Raises:
        InputError: there is no such device, or it is to wait: slots do not.
        RemoteError: the edge refuses, or goes away.
    """
    check_device(scenario, device)
    connection = ClientSettings(limits=limits or WireLimits(), security=security or ClientSecurity())
    check_slots_go_on(on_failure)
    run = _DeviceRun(target, scenario, device, services, connection, times or DeviceTimes(), make_clock, make_link)
    run.on_alone = on_alone if on_failure == "fallback" else None
    run.on_return = on_return
    run.tracing = tracing
    return run.run(on_start, on_period)


def check_device(scenario: Scenario, device: int) -> None:
    """Refuse a scenario or a device that cannot be run.

    Raises:
        ScenarioError: a field is in the way of a live run.
        InputError: there is no such device.
    """
    check_live(scenario)
    if not 0 <= device < scenario.num_devices:
        raise InputError(f"index: the scenario has devices 0..{scenario.num_devices - 1}, not {device}")


class _DeviceRun:
    def __init__(
        self,
        target: str,
        scenario: Scenario,
        device: int,
        services: Sequence[Service],
        connection: ClientSettings,
        times: DeviceTimes,
        make_clock: MakeClock,
        make_link: MakeLink,
    ) -> None:
        self._scenario = scenario
        self._device = device
        self._services = services
        self._exchange = Exchange(target, connection)
        self._times = times
        self._make_clock, self._make_link = make_clock, make_link
        self._attendance = Attendance(target, self._receive, connection)
        self._loop: DeviceLoop | None = None
        self._ticker: Ticker | None = None
        self._time_scale = 1.0
        self._wall_latency_s: list[float] = []
        self._late_cuts = 0
        self._retries = 0
        self._told: pb.Alone | None = None  # what the edge knows of what this device did alone
        self.on_alone: Callable[[int, int, RemoteError], None] | None = None
        self.on_return: Callable[[int], None] = lambda slot: None
        self.tracing: Tracing | None = None
        self._is_alone, self._is_over = False, False
        self._back: tuple[Attendance, pb.Start, float] | None = None
        self._target, self._connection = target, connection

    def run(
        self,
        on_start: Callable[[pb.Start], None],
        on_period: Callable[[int, Period, Sequence[int]], None],
    ) -> pb.Farewell:
        self._hello = pb.Hello(
            protocol_version=MAX_PROTOCOL_VERSION,
            device=self._device,
            scenario=digest(self._scenario),
            fingerprints=[service.fingerprint for service in self._services],
        )
        self._setting = setting_of(self._scenario)
        self._rule = rule_of(self._scenario)
        warm_allocation(self._rule, self._setting)
        try:
            start = self._attendance.join(self._hello, connect_s=self._times.connect_s, join_s=self._times.join_s)
            on_start(start)
            # One thread is the device's processor: heads run one after the other, as they are served.
            with ThreadPoolExecutor(1, "splitinfer-head", self._services[0].prepare_thread) as processor:
                farewell = self._slots(start, processor, on_period)
            if not self._is_alone:
                self._attendance.leave(farewell)
        finally:
            self._is_over = True
            self._attendance.close()
            if self._loop is not None:
                self._loop.end_traces()
            if self._back is not None:
                self._back[0].close()
        return farewell

    def _slots(
        self,
        start: pb.Start,
        processor: ThreadPoolExecutor,
        on_period: Callable[[int, Period, Sequence[int]], None],
    ) -> pb.Farewell:
        self._check_start(start)
        self._exchange.agree(start.limits.max_message_bytes, read_codecs(start.codecs))
        first = start.first_slot
        begins_s = time.perf_counter() + start.starts_in_s - first * start.slot_wall_s
        # The edge says what its engine and its batches may differ by.
        self._services = [service.with_tolerance(start.tolerance) for service in self._services]
        setting = self._setting
        count = len(self._services)
        clock = self._make_clock(count, slot_s=setting.slot_s, executor=processor, wait_s=start.patience_s)
        link = self._make_link(count, slot_s=setting.slot_s)
        world = DeviceWorld(self._scenario, start.seed, self._device)
        loop = DeviceLoop(
            setting,
            self._device,
            self._services,
            world,
            clock,
            link,
            self._exchange,
            self._rule,
            tracing=self.tracing,
            keeps_crossing=self.on_alone is not None,
        )
        last_cuts = [service.last for service in self._services]
        patient_slots = self._times.silence_s / start.slot_wall_s
        self._ticker = ticker = Ticker(begins_s, start.slot_wall_s)
        self._time_scale = start.slot_wall_s / setting.slot_s
        self._loop = loop
        period = setting.slots_per_period
        cuts: Sequence[int] = list(start.cuts)
        awaited = 0  # the period whose cuts are late, 0 for none
        returned = first
        for slot in range(first, start.slots + 1):
            ticker.wait(slot)
            if self._is_alone and (back := self._returns_at(slot)) is not None:
                loop.end_alone()
                cuts, awaited, returned = list(back.cuts), 0, slot
                self._ticker = ticker = Ticker(
                    time.perf_counter() + back.starts_in_s - slot * back.slot_wall_s, start.slot_wall_s, ticker
                )
            message = pb.Slot(slot=slot)
            if slot > first:
                if slot > returned + 1 and (slot - 1) % period == 0:
                    awaited = slot - 1
                if awaited and not self._is_alone:
                    is_due = awaited == slot - 1
                    try:
                        came = self._attendance.cuts_from(awaited, start.patience_s if is_due else 0.0)
                        if came is not None:
                            self._check_cuts(came)
                        if came is None and slot - awaited > patient_slots and self.on_alone is not None:
                            raise DeadlineError(f"the edge sent no cuts for {self._times.silence_s:g} s")
                    except RemoteError as error:
                        self._go_alone(slot, error)
                        came = last_cuts
                    self._late_cuts += came is None and is_due
                    cuts, awaited = (cuts, awaited) if came is None else (came, 0)
                self._note(message, loop.close_slot(slot - 1, cuts))
            if slot < start.slots:
                _add_pieces(message, loop.open_slot(slot))
                if (slot + 1) % period == 0 or slot + 1 == start.slots:
                    means = loop.period_means(cuts)
                    message.telemetry.CopyFrom(to_message(means))
                    on_period(slot + 1, means, cuts)
            if not self._is_alone:
                self._note_alone(message)
                if slot == returned > 0:
                    message.under_way.extend(loop.under_way_by_service())
                try:
                    self._attendance.send(message)
                except RemoteError as error:
                    self._go_alone(slot, error)
                    cuts = last_cuts
            if slot < start.slots:
                ticker.done(slot)
        if not self._is_alone:
            try:
                self._attendance.wait_finished(self._times.silence_s)
            except RemoteError as error:
                self._go_alone(start.slots, error)
        shortfall = clock.shortfall
        return pb.Farewell(
            checked=loop.check.checked,
            wrong=loop.check.wrong,
            unexpected=loop.check.unexpected,
            unanswered=loop.under_way,
            slot_overruns=ticker.overruns,
            late_cuts=self._late_cuts,
            jobs=shortfall.jobs,
            late_jobs=shortfall.late_jobs,
            late_slots=shortfall.late_slots,
            late_s=shortfall.late_s,
            worst_late_s=shortfall.worst_s,
            host_s=shortfall.host_s,
            wall_latency_s=self._wall_latency_s,
        )

    def _check_start(self, start: pb.Start) -> None:
        """Refuse a run that cannot be: what an edge says decides how long the device works, and on what.

        Raises:
            RemoteError: a number is out of its range.
        """
        seconds = {"slot_wall_s": start.slot_wall_s, "starts_in_s": start.starts_in_s, "patience_s": start.patience_s}
        wrong = [name for name, value in seconds.items() if not 0 <= value <= LONGEST_S]
        wrong += ["slot_wall_s"] if start.slot_wall_s == 0 else []
        wrong += ["slots"] if not start.first_slot < start.slots else []
        wrong += ["tolerance"] if not 0 <= start.tolerance <= 1 else []
        if wrong:
            raise RemoteError(f"the edge starts a run with an impossible {wrong[0]}", status="INVALID_ARGUMENT")
        self._check_cuts(start.cuts)

    def _check_cuts(self, cuts: Sequence[int]) -> None:
        """Refuse cuts that the device's services have not.

        Raises:
            RemoteError: there are some.
        """
        lasts = [service.last for service in self._services]
        if len(cuts) != len(lasts) or any(cut > last for cut, last in zip(cuts, lasts, strict=True)):
            shown = ", ".join(map(str, cuts[:8]))
            raise RemoteError(
                f"the edge sends cuts {shown}, of which this device has not all", status="INVALID_ARGUMENT"
            )

    def _go_alone(self, slot: int, error: RemoteError) -> None:
        if self.on_alone is None:
            raise error
        assert self._loop is not None
        self._is_alone = True
        self._told = None  # who knows whether it came
        self._attendance.close()
        self._begin_return()
        self.on_alone(slot, self._loop.go_alone(), error)

    def _begin_return(self) -> None:
        """Knock at the edge again, in a thread of its own, until it lets the device back in."""
        self._back = None
        threading.Thread(target=self._knock, name="splitinfer-return", daemon=True).start()

    def _knock(self) -> None:
        while self._is_alone and not self._is_over:
            attendance = Attendance(self._target, self._receive, self._connection)
            self._retries += 1
            try:
                start = attendance.join(self._hello, connect_s=RETURN_S, join_s=self._times.join_s)
            except (RemoteError, InputError):  # nobody there yet, or somebody who still thinks that we are, too
                attendance.close()
                time.sleep(RETURN_S)
                continue
            self._back = attendance, start, time.perf_counter()
            return

    def _returns_at(self, slot: int) -> pb.Start | None:
        """Take the place that the edge offers, if this is the slot from which it does."""
        if self._back is None:
            return None
        attendance, start, told_s = self._back
        if slot < start.first_slot:
            return None
        self._back = None
        if slot > start.first_slot or start.first_slot == 0:  # too late, or another run: let it lapse and try again
            attendance.close()
            self._begin_return()
            return None
        self._check_start(start)
        start.starts_in_s -= time.perf_counter() - told_s
        self._attendance = attendance
        self._is_alone = False
        self.on_return(slot)
        return start

    def _note(self, message: pb.Slot, closed: Closed) -> None:
        message.arrived.extend(closed.arrived.tolist())
        for task, _ in closed.finished:
            message.finished.add(task=task.number, service=task.service, cut=task.cut, arrival_slot=task.arrival_slot)
            self._note_latency(task.arrival_slot)

    def _note_alone(self, message: pb.Slot) -> None:
        assert self._loop is not None
        done = pb.Alone(retries=self._retries, fallbacks=self._loop.fallbacks)
        if done.retries and done != self._told:
            message.alone.CopyFrom(done)
            self._told = done

    def _receive(self, result: pb.Result) -> None:
        reply = self._exchange.reply(result.reply)
        if reply.refusal is not None:
            raise RemoteError(f"the edge refused task {result.task}: {reply.refusal[1]}", status="INTERNAL")
        assert self._loop is not None
        task = self._loop.receive(result.task, reply.tensors)
        if task is not None:
            self._note_latency(task.arrival_slot)

    def _note_latency(self, arrival_slot: int) -> None:
        """Real time from the start of the slot in which a task came to its answer, as virtual time."""
        assert self._ticker is not None
        self._wall_latency_s.append((time.perf_counter() - self._ticker.begins_s(arrival_slot)) / self._time_scale)


def _add_pieces(message: pb.Slot, pieces: list[Piece]) -> None:
    for piece in pieces:
        task = piece.key
        message.pieces.add(
            task=task.number,
            service=task.service,
            cut=task.cut,
            arrival_slot=task.arrival_slot,
            byte_offset=piece.offset,
            message_bytes=piece.message_bytes,
            data=bytes(piece.data),
        )
