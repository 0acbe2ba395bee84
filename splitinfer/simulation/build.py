"""From a scenario to plain numbers: the setting that engine, policies, learning and live runs share."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from splitinfer.energy.processor import cubic_row, stack_rows
from splitinfer.energy.transmitter import RADIATED_ROW
from splitinfer.scheduling.rules import ALLOCATIONS, RULE_METHODS, AllocationRule, checked_rule
from splitinfer.scheduling.setting import Setting
from splitinfer.simulation.scenario import Scenario
from splitinfer.simulation.surroundings import channel_law
from splitinfer.user_code import make_own

Array = NDArray[np.float64]


def setting_of(scenario: Scenario) -> Setting:
    """Return what engine, policies, learning and live runs share of a scenario."""
    local, bits, edge = _work_tables(scenario)
    cards = scenario.cards
    by_paper = [name == "paper" for name in _card_names(scenario)]

    def per_device(paper: float, of_card: list[float]) -> Array:
        return np.where(by_paper, paper, of_card)

    rows = [
        cubic_row(scenario.energy_coefficient) if paper else card.used_core.row()
        for paper, card in zip(by_paper, cards, strict=True)
    ]
    mean_gain, fading = channel_law(scenario)
    same = {name: getattr(scenario, name) for name in _SAME}
    return Setting(
        **same
        | {
            "device_bandwidth_hz": scenario.bandwidth_hz / scenario.num_devices,
            "local_cycles": local,
            "transmission_bits": bits,
            "edge_cycles": edge,
            "max_local_frequency_hz": per_device(
                scenario.max_local_frequency_hz, [c.used_core.limit_hz for c in cards]
            ),
            "max_power_w": per_device(scenario.max_power_w, [c.used_radio.max_power_w for c in cards]),
            "energy_coefficient": per_device(scenario.energy_coefficient, [c.effective_cubic for c in cards]),
            "arrival_rate_hz": scenario.arrival_rates_hz(),
            "answer_s": _answer_s(scenario),
            "processor": stack_rows(rows),
            "radio": np.array(
                [RADIATED_ROW if paper else c.used_radio.row() for paper, c in zip(by_paper, cards, strict=True)]
            ),
            "mean_gain": mean_gain,
            "fading": fading,
        }
    )


_SAME = [f.name for f in fields(Setting) if f.name in Scenario.model_fields or hasattr(Scenario, f.name)]
"""Numbers of a setting that a scenario has under the same name."""


def rule_of(scenario: Scenario) -> AllocationRule:
    """Return a new allocation rule of a scenario.

    Raises:
        InputError: the module of a rule of the user's own holds none.
    """
    if scenario.allocation in ALLOCATIONS:
        return ALLOCATIONS[scenario.allocation]()
    return checked_rule(make_own(scenario.allocation, "allocation", RULE_METHODS))


def _card_names(scenario: Scenario) -> tuple[str, ...]:
    return (scenario.device,) * scenario.num_devices if isinstance(scenario.device, str) else scenario.device


def _answer_s(scenario: Scenario) -> Array:
    """Seconds that an answer of each service takes on its way back, (M, N)."""
    seconds = np.zeros(scenario.active.shape)
    if scenario.downlink_bps is not None:
        rates = np.broadcast_to(scenario.downlink_bps, scenario.num_devices)
        for device, profiles in enumerate(scenario.profiles):
            bits = [profile.output_bits for profile in profiles]
            seconds[device, : len(bits)] = np.array(bits) / rates[device]
    return seconds


def _work_tables(scenario: Scenario) -> tuple[Array, Array, Array]:
    """Local cycles, bits and edge cycles of one task per choice, each (M, N, K_max + 1), zero beyond the last."""
    shape = (*scenario.active.shape, int(scenario.num_cuts.max()) + 1)
    local, bits, edge = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for device, profiles in enumerate(scenario.profiles):
        for service, profile in enumerate(profiles):
            choices = scenario.choices[device][service]
            own = device, service, slice(len(choices))
            share = np.array([profile.compute_share(one.cut) for one in choices])
            head = share * (profile.total_macs * scenario.device_cycles_per_mac(device, profile.model))
            local[own] = head + np.array([one.encode_cycles for one in choices])
            edge[own] = (1 - share) * (profile.total_macs * scenario.cycles_per_mac)
            bits[own] = [one.bits for one in choices]
    return local, bits, edge
