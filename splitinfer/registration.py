"""Makes the environments known to Gymnasium, without importing Gymnasium or what the environments need.

Gymnasium looks for environments of other packages nowhere by itself. So ``import splitinfer`` leaves a note that
Gymnasium's own import, now or later, picks up.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_ENVIRONMENTS = {
    "splitinfer/Partition-v0": "splitinfer.learning.environments:PartitionEnv",
    "splitinfer/Joint-v0": "splitinfer.learning.environments:JointEnv",
}


def register() -> None:
    """Register ``splitinfer/Partition-v0`` and ``splitinfer/Joint-v0``; Gymnasium must be importable."""
    from gymnasium.envs.registration import register as register_one
    from gymnasium.envs.registration import registry

    for name, entry_point in _ENVIRONMENTS.items():
        if name not in registry:
            register_one(id=name, entry_point=entry_point)


def register_with_gymnasium() -> None:
    """Register now if Gymnasium has been imported, else as soon as it is."""
    if "gymnasium" in sys.modules:
        register()
    elif not any(isinstance(finder, _AfterGymnasium) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterGymnasium())


class _AfterGymnasium(MetaPathFinder):
    """Finds nothing itself: it lets Gymnasium be found as ever and registers once that is imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "gymnasium":
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        loader: Any = None if spec is None else spec.loader
        if loader is None:
            return None
        execute = loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            register()

        loader.exec_module = execute_and_register
        return spec
