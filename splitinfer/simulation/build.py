"""From a scenario to plain numbers: the engine's world, and the setting that policies are told."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from splitinfer.profiling.profile import Profile, TensorRecord
from splitinfer.scheduling.observation import Setting
from splitinfer.simulation.scenario import Scenario
from splitinfer.simulation.world import World

Array = NDArray[np.float64]


def world_of(scenario: Scenario) -> World:
    """Return the engine's view of a scenario."""
    local, bits, edge = _work_tables(scenario)
    return World(
        slot_s=scenario.slot_s,
        slots_per_period=scenario.slots_per_period,
        bandwidth_hz=scenario.bandwidth_hz / scenario.num_devices,
        noise_w_per_hz=scenario.noise_w_per_hz,
        max_edge_frequency_hz=scenario.max_edge_frequency_hz,
        local_cycles=local,
        transmission_bits=bits,
        edge_cycles=edge,
        cut_count=scenario.num_cuts,
        max_local_frequency_hz=np.asarray(scenario.max_local_frequency_hz),
        max_power_w=np.asarray(scenario.max_power_w),
        energy_coefficient=np.asarray(scenario.energy_coefficient),
        local_energy_weight=np.asarray(scenario.local_energy_weight),
        transmission_energy_weight=np.asarray(scenario.transmission_energy_weight),
        active=scenario.active,
    )


def setting_of(scenario: Scenario) -> Setting:
    """Return what a policy is told before a run of this scenario."""
    world = world_of(scenario)
    return Setting(
        active=world.active,
        num_cuts=world.cut_count,
        local_cycles=world.local_cycles,
        transmission_bits=world.transmission_bits,
        edge_cycles=world.edge_cycles,
        arrival_rate_hz=scenario.arrival_rates_hz(),
        slot_s=world.slot_s,
        slots_per_period=world.slots_per_period,
        max_local_frequency_hz=world.max_local_frequency_hz,
        max_power_w=world.max_power_w,
        max_edge_frequency_hz=world.max_edge_frequency_hz,
        device_bandwidth_hz=world.bandwidth_hz,
        noise_w_per_hz=world.noise_w_per_hz,
        energy_coefficient=world.energy_coefficient,
        local_energy_weight=world.local_energy_weight,
        transmission_energy_weight=world.transmission_energy_weight,
        queue_weights=scenario.queue_weights,
        queue_scale_cycles=scenario.queue_scale_cycles,
        queue_scale_bits=scenario.queue_scale_bits,
        reward_energy_weight=scenario.reward_energy_weight,
        reward_queue_weight=scenario.reward_queue_weight,
    )


def _work_tables(scenario: Scenario) -> tuple[Array, Array, Array]:
    """Local cycles, bits and edge cycles of one task per cut, each (M, N, K_max + 1), zero beyond a service's K."""
    shape = (*scenario.active.shape, int(scenario.num_cuts.max()) + 1)
    local, bits, edge = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for device, profiles in enumerate(scenario.profiles):
        for service, profile in enumerate(profiles):
            cuts = profile.num_cuts + 1
            cycles = profile.total_macs * scenario.cycles_per_mac
            local[device, service, :cuts] = profile.compute_ratio * cycles
            edge[device, service, :cuts] = (1 - profile.compute_ratio) * cycles
            bits[device, service, :cuts] = _crossing_bits(profile, scenario)
    return local, bits, edge


def _crossing_bits(profile: Profile, scenario: Scenario) -> Array:
    """Bits of one task on the wire at each cut, shape (K + 1,)."""
    if scenario.codecs is None:  # the same for every element: d^k is the ratio of element counts
        return np.asarray(profile.crossing_elements * scenario.bits_per_element, np.float64)
    from splitinfer.wire.codecs import codecs_named
    from splitinfer.wire.dtypes import DTYPES

    codec = codecs_named([scenario.codecs])[0]

    def bits_of(tensor: TensorRecord) -> float:
        dtype = DTYPES.get(tensor.dtype)
        if dtype is None or not codec.takes(dtype):
            return tensor.bits
        return tensor.elements * codec.bits_per_element(dtype)

    return np.array([sum(map(bits_of, cut.crossing)) for cut in profile.cuts], np.float64)
