"""Randomised scenarios: what a policy for any headset is trained on, and what it is judged on.

One policy for many worlds has to meet many: other services, numbers of devices, rates, hardware, radio and weights.
Training and judging draw from the same kind of family but never from the same models or sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from splitinfer.errors import InputError
from splitinfer.simulation.arrivals import PeriodicArrivals, PoissonArrivals
from splitinfer.simulation.channel import CorrelatedChannel, RayleighChannel
from splitinfer.simulation.scenario import Scenario

Range = tuple[float, float]


@dataclass(frozen=True)
class WorldFamily:
    """Ranges that scenarios are drawn from; every pair is (lowest, highest).

    Frequencies, powers, rates and weights are drawn evenly on a logarithmic scale, the rest evenly. All devices host
    the same services. Arrival rates are drawn as shares of a load: ``local_load`` is the share of F^l that everything
    on the device would take, so every world can be carried without an edge, unless the edge is the better place.

    Attributes:
        models: names of shipped profiles.
        name: what records call it.
        num_devices: M.
        num_services: N.
        local_load: of a device with everything on it, as a share of F^l.
        max_local_frequency_hz: F^l.
        max_edge_frequency_hz: F^e.
        max_power_w: p_max.
        device_bandwidth_hz: b.
        distances_m: of each device.
        local_energy_weight: U^l; every other world has a weight so small that devices run flat out.
        transmission_energy_weight: U^t, likewise.
        allocation: the rule that serves the queues in all of them.
        latency_price_w: w, under ``price``.
    """

    models: tuple[str, ...]
    name: str = "many-worlds"
    num_devices: tuple[int, int] = (1, 6)
    num_services: tuple[int, int] = (1, 4)
    local_load: Range = (0.03, 0.95)
    max_local_frequency_hz: Range = (0.75e9, 3e9)
    max_edge_frequency_hz: Range = (5e9, 40e9)
    max_power_w: Range = (0.1, 0.5)
    device_bandwidth_hz: Range = (0.15e6, 1.5e6)
    distances_m: Range = (20.0, 400.0)
    local_energy_weight: Range = (1e16, 3e18)
    transmission_energy_weight: Range = (1e11, 3e13)
    allocation: str = "drift-plus-penalty"
    latency_price_w: Range = (0.001, 0.3)

    def draw(self, seed: int) -> Scenario:
        """Return one scenario; the same seed gives the same one.

        Raises:
            InputError: a range is empty, or a model has no shipped profile.
        """
        if not self.models:
            raise InputError("models: a family of worlds needs at least one")
        rng = np.random.default_rng((0x3B0B1D, seed))

        def log_even(limits: Range) -> float:
            return float(np.exp(rng.uniform(*np.log(limits))))

        devices = int(rng.integers(*self.num_devices, endpoint=True))
        services = int(rng.integers(*self.num_services, endpoint=True))
        flat_out = bool(rng.random() < 0.5)
        plain = Scenario(
            name=f"world-{seed}",
            num_devices=devices,
            services=tuple(rng.choice(self.models, services, replace=services > len(self.models)).tolist()),
            distances_m=tuple(rng.uniform(*self.distances_m, devices).tolist()),
            max_local_frequency_hz=log_even(self.max_local_frequency_hz),
            max_edge_frequency_hz=log_even(self.max_edge_frequency_hz),
            max_power_w=log_even(self.max_power_w),
            bandwidth_hz=devices * log_even(self.device_bandwidth_hz),
            local_energy_weight=1e9 if flat_out else log_even(self.local_energy_weight),
            transmission_energy_weight=1e6 if flat_out else log_even(self.transmission_energy_weight),
            arrivals=PeriodicArrivals() if rng.random() < 0.3 else PoissonArrivals(),
            channel=CorrelatedChannel(coherence_time_s=log_even((0.05, 1.0)))
            if rng.random() < 0.4
            else RayleighChannel(),
        )
        cycles = np.array([profile.total_macs * plain.cycles_per_mac for profile in plain.profiles[0]])
        load = log_even(self.local_load) * rng.dirichlet(np.full(services, 2.0))
        rates = load * plain.max_local_frequency_hz / cycles
        plain = plain.replace(arrival_rate_hz=tuple(float(f"{rate:.4g}") for rate in rates))
        if self.allocation == plain.allocation:
            return plain
        return plain.replace(allocation=self.allocation, latency_price_w=log_even(self.latency_price_w))

    def draw_many(self, count: int, *, seed: int = 0) -> list[Scenario]:
        """Return ``count`` scenarios, of the seeds ``seed * 10,000`` and on."""
        return [self.draw(10_000 * seed + number) for number in range(count)]


TRAINING_WORLDS = WorldFamily(
    models=(
        "convnext_tiny",
        "deeplabv3_mobilenet_v3_large",
        "densenet121",
        "googlenet",
        "lraspp_mobilenet_v3_large",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "resnet34",
        "resnet50",
        "shufflenet_v2_x1_0",
        "squeezenet1_1",
    )
)
"""What the shipped policy was trained on."""

UNSEEN_WORLDS = WorldFamily(
    models=("efficientnet_b0", "mobilenet_v3_large", "regnet_y_400mf", "resnet18", "vgg16", "vit_b_16"),
    num_devices=(2, 8),
    num_services=(2, 6),
)
"""What it is judged on: none of its models, and more devices and services."""
