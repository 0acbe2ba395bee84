"""The reward of a partition period: equations (34) to (36), and its counterpart under the price of time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from splitinfer.learning.stacked import StackedSettings

Floats = NDArray[np.float64]


def device_rewards(settings: StackedSettings, energy_j: Floats, mean_backlog: Floats) -> Floats:
    """Return each device's part of (34): ``-(w1 (E^l + E^t) + w2 Qbar)``.

    Energies and queues are means over the period's slots (35)(36); ``Qbar = sum_n beta1 Q^l/V1 + beta2 Q^t/V2 + beta3
    Q^e/V1`` with the scenario's queue weights and scales. The paper's reward is the sum over the devices.

    Args:
        settings: of E environments.
        energy_j: (E, M), mean ``E^l + E^t`` of a slot.
        mean_backlog: (E, 3, M, N), mean queues in cycles, bits and cycles.

    Returns:
        (E, M).
    """
    scaled_queue = np.einsum("es,esmn->em", settings.queue_price, mean_backlog)
    return np.asarray(
        -(settings.reward_energy_weight[:, None] * energy_j + settings.reward_queue_weight[:, None] * scaled_queue)
    )


def priced_rewards(settings: StackedSettings, energy_j: Floats, task_s: Floats) -> Floats:
    """Return what a period costs each device under the price of time, ``-w1 (E^l + E^t + w · task-seconds)``.

    Over a run that is energy + w times the sum of all latencies, by which a policy is judged there, averaged over slots
    as in (35) and in the unit of (34).

    Args:
        settings: of E environments.
        energy_j: (E, M), mean ``E^l + E^t`` of a slot.
        task_s: (E, M), mean over the slots of the seconds that tasks spent in the device's three queues.

    Returns:
        (E, M).
    """
    return np.asarray(-settings.reward_energy_weight[:, None] * (energy_j + settings.latency_price_w * task_s))
