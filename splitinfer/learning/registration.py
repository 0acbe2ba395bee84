"""The environments under Gymnasium's names, by its own convention: importing the package that has them registers them.

``gymnasium.make("splitinfer.learning:splitinfer/Partition-v0")`` imports it by itself. ``import splitinfer`` registers
them too where Gymnasium was imported before; it does not import Gymnasium, which few of its users need.
"""

from __future__ import annotations

_ENVIRONMENTS = {
    "splitinfer/Partition-v0": "splitinfer.learning.environments:PartitionEnv",
    "splitinfer/Joint-v0": "splitinfer.learning.environments:JointEnv",
}


def register() -> None:
    """Register both environments; nothing happens to those that are registered."""
    from gymnasium.envs.registration import register as register_one
    from gymnasium.envs.registration import registry

    for name, entry_point in _ENVIRONMENTS.items():
        if name not in registry:
            register_one(id=name, entry_point=entry_point)
