"""Makes the environments known to Gymnasium, without importing what they need."""

from __future__ import annotations

from importlib.util import find_spec

_ENVIRONMENTS = {
    "splitinfer/Partition-v0": "splitinfer.learning.environments:PartitionEnv",
    "splitinfer/Joint-v0": "splitinfer.learning.environments:JointEnv",
}


def register() -> None:
    """Register ``splitinfer/Partition-v0`` and ``splitinfer/Joint-v0``; does nothing where Gymnasium is absent."""
    if find_spec("gymnasium") is None:
        return
    from gymnasium.envs.registration import register as register_one
    from gymnasium.envs.registration import registry

    for name, entry_point in _ENVIRONMENTS.items():
        if name not in registry:
            register_one(id=name, entry_point=entry_point)
