"""Allocation rules: who runs how fast in a slot. One protocol for the simulator, live runs and learning.

``drift-plus-penalty`` is the paper's (Problems 3 to 5), ``price`` prices a second of a task's latency. The simulator
knows both in compiled form and runs them in its slot loop; any other object with these methods is asked slot by slot,
which is slower and otherwise the same. ``docs/allocation.md`` and ``docs/price_of_time.md`` explain the rules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from splitinfer.errors import InputError
from splitinfer.scheduling.allocation import allocate_edge, allocate_local, allocate_transmission, checked
from splitinfer.scheduling.setting import Setting

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Waiting:
    """What waits at one station at the start of a slot; one entry per queue, 0 where it is empty.

    Attributes:
        work: backlog, cycles or bits.
        tasks: their number.
        head_work: work left of the task at the head of the line; a task may have been served in part.
        head_arrival_slot: when that task came to its device.
        slot: the slot that begins.
    """

    work: Floats
    tasks: Ints
    head_work: Floats
    head_arrival_slot: Ints
    slot: int

    def shaped(self, shape: tuple[int, ...]) -> Waiting:
        """The same with arrays of another shape."""
        return self._each(lambda column: column.reshape(shape))

    def of(self, device: int) -> Waiting:
        """One device's row."""
        return self._each(lambda column: column[device])

    def _each(self, part: Callable[[Any], Any]) -> Waiting:
        return Waiting(part(self.work), part(self.tasks), part(self.head_work), part(self.head_arrival_slot), self.slot)


@runtime_checkable
class AllocationRule(Protocol):
    """Decides the frequencies and rates of every slot. A run has a copy of the rule of its own.

    Attributes:
        name: what tables call it.
    """

    name: str

    def start(self, setting: Setting) -> None:
        """Begin a run."""

    def observe(self, device: int, channel_gain: float) -> None:
        """Take note of a device's gain; called in every slot, before anything else, also when nothing waits."""

    def local(self, device: int, waiting: Waiting) -> Floats:
        """Return f^l of each service of a device, cycles/s, shape (N,).

        Args:
            device: m.
            waiting: at its processor; work in cycles, arrays of shape (N,).
        """

    def transmission(self, device: int, waiting: Waiting, channel_gain: float) -> tuple[Floats, float]:
        """Return r of each service of a device, bit/s, shape (N,), and the radiated power up to which it may send, W.

        Args:
            device: m.
            waiting: at its link; work in bits, arrays of shape (N,).
            channel_gain: h of the slot.
        """

    def edge(self, waiting: Waiting) -> Floats:
        """Return f^e of each queue at the edge, cycles/s; all arrays have the shape (M, N)."""


class DriftPlusPenalty:
    """Problems 3, 4 and 5: a backlog Q is worth its energy up to where the marginal price meets it (the paper's)."""

    name = "drift-plus-penalty"

    def start(self, setting: Setting) -> None:
        self._setting = setting

    def observe(self, device: int, channel_gain: float) -> None:
        """Gains of the past do not matter."""

    def local(self, device: int, waiting: Waiting) -> Floats:
        setting = self._setting
        return allocate_local(
            waiting.work,
            slot_s=setting.slot_s,
            energy_weight=setting.local_energy_weight[device],
            max_frequency_hz=setting.max_local_frequency_hz[device],
            queue_weight=setting.queue_weight[device],
            processor=setting.processor[device],
        )

    def transmission(self, device: int, waiting: Waiting, channel_gain: float) -> tuple[Floats, float]:
        setting = self._setting
        rate, power = allocate_transmission(
            waiting.work,
            slot_s=setting.slot_s,
            energy_weight=setting.transmission_energy_weight[device],
            bandwidth_hz=setting.device_bandwidth_hz,
            noise_w_per_hz=setting.noise_w_per_hz,
            channel_gain=channel_gain,
            max_power_w=setting.max_power_w[device],
            queue_weight=setting.queue_weight[device],
            radio=setting.radio[device],
        )
        return rate, float(power)

    def edge(self, waiting: Waiting) -> Floats:
        setting = self._setting
        flat = allocate_edge(
            waiting.work.reshape(-1),
            slot_s=setting.slot_s,
            max_frequency_hz=setting.max_edge_frequency_hz,
            queue_weight=setting.queue_weight.reshape(-1),
        )
        return flat.reshape(waiting.work.shape)


class PriceOfTime:
    """Work at the speed at which a cycle, and a bit, cost least when every waiting task costs w joules a second.

    With the setting's ``price_growth_s``, w grows with the time that the oldest of them has waited.
    """

    name = "price"

    def start(self, setting: Setting) -> None:
        from splitinfer.scheduling.pricing import bit_prices

        self._setting = setting
        self._channel = bit_prices(setting)
        self._processor = np.array(setting.processor)
        self._radio = np.array(setting.radio)

    def observe(self, device: int, channel_gain: float) -> None:
        from splitinfer.scheduling.pricing import follow_gain_row

        follow_gain_row(self._channel, device, float(channel_gain))

    def local(self, device: int, waiting: Waiting) -> Floats:
        from splitinfer.scheduling.pricing import local_price_row

        setting = self._setting
        out: Floats = np.zeros((1, len(waiting.work)))
        local_price_row(
            *self._line(waiting),
            self._wages(waiting),
            device,
            setting.slot_s,
            float(setting.latency_price_w[device]),
            self._processor,
            float(setting.max_local_frequency_hz[device]),
            out,
        )
        return np.asarray(out[0])

    def transmission(self, device: int, waiting: Waiting, channel_gain: float) -> tuple[Floats, float]:
        from splitinfer.scheduling.pricing import link_price_row

        setting = self._setting
        out = np.zeros((setting.num_devices, len(waiting.work)))
        line = [np.repeat(column, setting.num_devices, axis=0) for column in self._line(waiting)]
        _, power = link_price_row(
            line[0],
            line[1],
            line[2],
            self._wages(waiting),
            device,
            setting.slot_s,
            float(setting.latency_price_w[device]),
            self._channel,
            self._radio,
            setting.device_bandwidth_hz,
            setting.noise_w_per_hz,
            float(channel_gain),
            float(setting.max_power_w[device]),
            out,
        )
        return out[device], float(power)

    def edge(self, waiting: Waiting) -> Floats:
        from splitinfer.scheduling.pricing import edge_price_row

        setting = self._setting
        out = np.zeros((1, waiting.work.size))
        edge_price_row(*self._line(waiting), setting.slot_s, setting.max_edge_frequency_hz, out)
        return out.reshape(waiting.work.shape)

    def _wages(self, waiting: Waiting) -> int:
        """As how many tasks those that wait count."""
        from splitinfer.scheduling.pricing import grown

        age_slots = int(waiting.slot - waiting.head_arrival_slot[waiting.tasks > 0].min())
        return int(grown(int(waiting.tasks.sum()), age_slots, self._setting.slot_s, self._setting.price_growth_s))

    def _line(self, waiting: Waiting) -> tuple[Floats, Floats, Floats]:
        """Backlog, head of line and rank, (1, N) each and writable, as the compiled cores want them."""
        head = np.array(waiting.head_work, np.float64).reshape(1, -1)
        rank = head
        if self._setting.service_order == "oldest":
            rank = np.array(waiting.head_arrival_slot, np.float64).reshape(1, -1)
        return np.array(waiting.work, np.float64).reshape(1, -1), head, np.array(rank)


ALLOCATIONS: dict[str, Callable[[], AllocationRule]] = {rule.name: rule for rule in (DriftPlusPenalty, PriceOfTime)}
"""By name; each is also known to the simulator's compiled loop."""


def is_compiled(rule: AllocationRule) -> bool:
    """Whether the simulator's compiled loop knows the rule. What such a rule decides is feasible."""
    return type(rule) in (DriftPlusPenalty, PriceOfTime)


def within(rule: AllocationRule, wanted: Floats, most: Floats, limit: float | Callable[[], Any]) -> Floats:
    """What a rule asked for, no more than is queued, and scaled down together to keep a shared limit.

    Args:
        rule: whose wish it is.
        wanted: frequencies or rates.
        most: of each queue, its backlog within one slot.
        limit: of their sum, or a function that returns it.

    Raises:
        InputError: the wish is not made of numbers of at least 0, one per queue.
    """
    if is_compiled(rule):
        return wanted
    asked = checked(f"allocation: what {rule.name} asks for", wanted)
    if asked.shape != most.shape:
        raise InputError(f"allocation: {rule.name} returns the shape {asked.shape}, not {most.shape}")
    served = np.minimum(asked, most)
    total, ceiling = float(served.sum()), float(limit() if callable(limit) else limit)
    return served * (ceiling / total) if total > ceiling else served


RULE_METHODS = ("start", "observe", "local", "transmission", "edge")
"""What an allocation rule has."""


def checked_rule(rule: Any) -> AllocationRule:
    """``rule``, if it has what a rule needs.

    Raises:
        InputError: a method is missing.
    """
    missing = [method for method in RULE_METHODS if not callable(getattr(rule, method, None))]
    if missing or isinstance(rule, type):
        what = "is a class, not an object" if isinstance(rule, type) else f"has no method {', no '.join(missing)}"
        raise InputError(f"allocation: {type(rule).__name__} is no allocation rule: it {what}")
    checked: AllocationRule = rule
    return checked
