"""Gymnasium knows the environments after ``import splitinfer``, in whichever order the two are imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

SHOW = "print(sorted(name for name in gymnasium.registry if name.startswith('splitinfer/')))"


@pytest.mark.parametrize("order", ["import splitinfer, gymnasium", "import gymnasium, splitinfer"])
def test_the_environments_are_registered(order: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"{order}; {SHOW}"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['splitinfer/Joint-v0', 'splitinfer/Partition-v0']"


def test_importing_splitinfer_imports_nothing_heavy() -> None:
    heavy = ("gymnasium", "torch", "numba", "grpc", "matplotlib", "numpy", "cvxpy")
    check = f"import sys, splitinfer; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
