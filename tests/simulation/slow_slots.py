"""One environment, slot by slot, in plain Python: slow, and written straight from the model, for the tests only.

Nothing here comes from the package: the allocation rules, the radio, the energy and the queues are written again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Task:
    device: int
    service: int
    cut: int
    arrival_slot: int
    remaining: float = 0.0


class SlowWorld:
    """Queues of one ``Setting``; ``step`` runs one slot."""

    def __init__(self, world):
        self.world = world
        self.devices, self.services = world.num_devices, world.num_services
        self.clock = 0
        self.queues = {
            (stage, m, n): [] for stage in range(3) for m in range(self.devices) for n in range(self.services)
        }
        self.finished = []  # (device, service, arrival slot, finish slot, cut)
        self.energy_local = [0.0] * self.devices
        self.energy_transmission = [0.0] * self.devices

    def work(self, task, stage):
        table = (self.world.local_cycles, self.world.transmission_bits, self.world.edge_cycles)[stage]
        return float(table[task.device, task.service, task.cut])

    def backlog(self, stage, m, n):
        return math.fsum(task.remaining for task in self.queues[stage, m, n])

    def enter_next(self, task, stage):
        """Put the task into the first stage from ``stage`` on in which it has work."""
        while stage < 3 and self.work(task, stage) == 0:
            stage += 1
        if stage == 3:
            self.finished.append((task.device, task.service, task.arrival_slot, self.clock, task.cut))
        else:
            task.remaining = self.work(task, stage)
            self.queues[stage, task.device, task.service].append(task)

    def by_worth(self, stage, keys):
        worth = {(m, n): self.world.queue_weight[m, n] * self.backlog(stage, m, n) for m, n in keys}
        return sorted((key for key in keys if self.backlog(stage, *key) > 0), key=lambda key: -worth[key]), worth

    def local_rates(self, m):
        w = self.world
        order, worth = self.by_worth(0, [(m, n) for n in range(self.services)])
        rates, total = {}, 0.0
        for key in order:
            cost = 3 * w.local_energy_weight[m] * w.energy_coefficient[m]
            level = min(w.max_local_frequency_hz[m], math.sqrt(worth[key] / cost) if cost else math.inf)
            rates[key] = min(self.backlog(0, *key) / w.slot_s, max(0.0, level - total))
            total += rates[key]
        return rates, total

    def transmission_rates(self, m, gain):
        w = self.world
        order, worth = self.by_worth(1, [(m, n) for n in range(self.services)])
        rates, total = {}, 0.0
        if gain == 0:
            return rates, 0.0
        ceiling = w.device_bandwidth_hz * math.log2(
            1 + w.max_power_w[m] * gain / (w.device_bandwidth_hz * w.noise_w_per_hz)
        )
        for key in order:
            cost = w.transmission_energy_weight[m] * w.noise_w_per_hz * math.log(2) / gain
            level = ceiling
            if cost:
                level = min(ceiling, w.device_bandwidth_hz * math.log2(worth[key] / cost)) if worth[key] else 0.0
            rates[key] = min(self.backlog(1, *key) / w.slot_s, max(0.0, level - total))
            total += rates[key]
        power = w.device_bandwidth_hz * w.noise_w_per_hz / gain * (2 ** (total / w.device_bandwidth_hz) - 1)
        return rates, power

    def edge_rates(self):
        w = self.world
        order, _ = self.by_worth(2, [(m, n) for m in range(self.devices) for n in range(self.services)])
        rates, total = {}, 0.0
        for key in order:
            rates[key] = min(self.backlog(2, *key) / w.slot_s, max(0.0, w.max_edge_frequency_hz - total))
            total += rates[key]
        return rates

    def step(self, cuts, gains, arrivals):
        w = self.world
        rates = [{}, {}, self.edge_rates()]
        for m in range(self.devices):
            local, frequency = self.local_rates(m)
            sent, power = self.transmission_rates(m, gains[m])
            rates[0] |= local
            rates[1] |= sent
            self.energy_local[m] += w.slot_s * w.energy_coefficient[m] * frequency**3
            self.energy_transmission[m] += w.slot_s * power

        moving = []  # tasks whose work in a stage ends with this slot, and the stage they look at next
        for stage in (2, 1, 0):
            for (m, n), rate in rates[stage].items():
                budget = rate * w.slot_s
                queue = self.queues[stage, m, n]
                while queue and budget > 0:
                    task = queue[0]
                    # What is left below 1e-12 of a task's work is rounding, not work.
                    if task.remaining - budget > 1e-12 * self.work(task, stage):
                        task.remaining -= budget
                        budget = 0.0
                    else:
                        budget -= task.remaining
                        moving.append((queue.pop(0), stage + 1))
        for task, stage in moving:
            self.enter_next(task, stage)

        for m in range(self.devices):
            for n in range(self.services):
                for _ in range(int(arrivals[m, n])):
                    self.enter_next(Task(m, n, int(cuts[m, n]), self.clock), 0)
        self.clock += 1
