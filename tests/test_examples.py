"""Every example runs to its end, in a process of its own, as a reader would run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
# What an example takes to be done in a few seconds.
SHORT: dict[str, list[str]] = {"xr_headset.py": ["--duration", "2"]}


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_an_example_runs(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", EXAMPLES / name, *SHORT.get(name, [])],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_there_are_examples() -> None:
    assert {"cut_any_model.py", "compare_policies.py", "split_inference.py", "xr_headset.py"} <= {
        p.name for p in EXAMPLES.glob("*.py")
    }
