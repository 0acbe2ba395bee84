"""Rows with numbers of our choice."""

from __future__ import annotations


def row(policy, value, *, seed=0, training_seed=None, energy_j=1.0, **changes):
    fields = {"figure": "fig6", "field": "max_power_w", "value": value, "policy": policy}
    fields |= {"training_seed": training_seed, "seed": seed, "slots": 1000, "energy_j": energy_j}
    fields |= {"energy_local_j": energy_j / 2, "energy_transmission_j": energy_j / 2}
    fields |= {"latency_mean_s": 0.2, "latency_p95_s": 0.4, "qbar": 0.1, "cost": 1.0, "reward": -4.0}
    fields |= {"queue_local_scaled": 0.1, "queue_transmission_scaled": 0.2, "queue_edge_scaled": 0.0}
    fields |= {"busy_local": 0.1, "busy_link": 0.2, "busy_edge": 0.0, "speed_local": 1.0}
    fields |= {"stable": True, "arrived": 100, "finished": 99, "cut_share": 0.5, "cut_share_0": 0.5}
    return fields | changes


def sweep_rows(**energies):
    """One run of each policy at 0.1 W and at 0.5 W."""
    return [
        row(policy, value, energy_j=float(energy))
        for policy, both in energies.items()
        for value, energy in zip((0.1, 0.5), both, strict=True)
    ]


def curve_rows(policy, rewards, training_seed=0):
    return [
        {"policy": policy, "training_seed": training_seed, "slots": 100 * (i + 1), "energy_j": 1e-3, "latency_s": 0.1}
        | {"reward": reward}
        for i, reward in enumerate(rewards)
    ]
