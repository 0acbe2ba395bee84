"""The state (25) as one vector of order one: the only place where observations are scaled for flat networks.

Every number is divided by a constant of its own scenario, so that a network sees seconds and shares, never cycles:

========================  ===================================================================================
queue Q^l, Q^t, Q^e       ``log(1 + Q / (capacity · period))``: periods of work, at the capacities F^l, R0 and F^e.
                          The logarithm keeps a queue that grows without bound at order one.
f^l, r, f^e               share of F^l, R0 and F^e.
c, d, 1 - c               of the cut in force, as they are (d is 1 for the raw input and at most a few).
p, R                      share of p_max; R over R0.
========================  ===================================================================================

``R0 = 10 b``: 10 bit/s per Hz, which is about what Table II's radio carries at 250 to 350 m.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitinfer.learning.stacked import StackedSettings
from splitinfer.scheduling.period import Period

REFERENCE_BITS_PER_S_PER_HZ = 10.0
"""R0 over b."""

STATE_LIMIT = 50.0
"""No number of a state exceeds this: e^50 periods of backlog are never reached, and Gymnasium wants a finite space."""


def capacities(settings: StackedSettings) -> NDArray[np.float64]:
    """F^l, R0 and F^e as (E, 3, M, 1)."""
    environments, devices, _ = settings.shape
    whole = (environments, devices)
    return np.stack(
        [
            settings.max_local_frequency_hz,
            np.broadcast_to(REFERENCE_BITS_PER_S_PER_HZ * settings.device_bandwidth_hz[:, None], whole),
            np.broadcast_to(settings.max_edge_frequency_hz[:, None], whole),
        ],
        axis=1,
    )[..., None]


def state_size(settings: StackedSettings) -> int:
    """Length of the state vector: 9 numbers per existing service and 2 per device, the same in every environment."""
    return 9 * int(settings.active[0].sum()) + 2 * settings.shape[1]


def state_vector(settings: StackedSettings, observation: Period) -> NDArray[np.float32]:
    """Return the scaled state of E environments with the same services.

    Args:
        settings: their settings; ``active`` must be the same in all.
        observation: what was observed.

    Returns:
        (E, S): for each existing service in the order of (m, n) Q^l, Q^t, Q^e, f^l, r, f^e, c, d, 1 - c; then p of
        every device; then R of every device. At least 0.
    """
    capacity = capacities(settings)
    period_s = (settings.slot_s * settings.slots_per_period)[:, None, None, None]
    queue = np.log1p(observation.backlog / (capacity * period_s))
    rate = observation.service_rate / capacity
    at_cut = settings.work_at(observation.cuts)
    whole_task = settings.work[:, 2, :, :, 0]
    whole_input = settings.work[:, 1, :, :, 0]
    ratio = at_cut / np.stack([_or_one(whole_task), _or_one(whole_input), _or_one(whole_task)], axis=1)
    services = np.concatenate([queue, rate, ratio], axis=1)
    rows = np.moveaxis(services, 1, -1)[:, settings.active[0]].reshape(len(services), -1)
    power = observation.power_w / settings.max_power_w
    channel = observation.max_rate_bps / capacity[:, 1, :, 0]
    state = np.concatenate([rows, power, channel], axis=1)
    return np.asarray(np.minimum(state, STATE_LIMIT), np.float32)


def state_space(settings: StackedSettings) -> Any:
    """Return the Gymnasium space of one environment's state."""
    from gymnasium.spaces import Box

    return Box(0.0, STATE_LIMIT, (state_size(settings),), np.float32)


def _or_one(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(values > 0, values, 1.0)
