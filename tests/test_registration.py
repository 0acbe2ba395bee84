"""Gymnasium knows the environments once ``splitinfer.learning`` is imported, by its own convention."""

from __future__ import annotations

import subprocess
import sys

import pytest

SHOW = "print(sorted(name for name in gymnasium.registry if name.startswith('splitinfer/')))"


@pytest.mark.parametrize(
    "order",
    [
        "import gymnasium, splitinfer",
        "import gymnasium, splitinfer.learning",
        "import splitinfer.learning, gymnasium",
        "import splitinfer, gymnasium; gymnasium.make('splitinfer.learning:splitinfer/Joint-v0').close()",
        "import gymnasium; gymnasium.make('splitinfer.learning:splitinfer/Partition-v0').close()",
    ],
)
def test_the_environments_are_registered(order: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"{order}; {SHOW}"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['splitinfer/Joint-v0', 'splitinfer/Partition-v0']"


def test_importing_splitinfer_imports_nothing_heavy() -> None:
    heavy = ("gymnasium", "torch", "numba", "grpc", "matplotlib", "numpy", "cvxpy")
    check = f"import sys, splitinfer; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nobody_hooks_into_imports() -> None:
    check = "import sys; before = list(sys.meta_path); import splitinfer.learning; print(before == sys.meta_path)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
