"""Every example runs to its end, in a process of its own, as a reader would run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from splitinfer.models.photos import shipped_photo

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


def test_two_machines_as_two_processes() -> None:
    folder = EXAMPLES / "two_machines"
    photo = shipped_photo()
    edge = subprocess.Popen(
        [sys.executable, folder / "edge.py", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert edge.stdout is not None
        address = edge.stdout.readline().rpartition(" ")[2].strip()
        device = [sys.executable, folder / "device.py", photo, photo, "--server", address]
        done = subprocess.run(device, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert len(lines) == 2
        assert all("tail at the edge" in line for line in lines)
    finally:
        edge.terminate()
        _, errors = edge.communicate(timeout=30)
    assert (edge.returncode, errors) == (0, "")


def test_there_are_examples() -> None:
    assert {"cut_any_model.py", "compare_policies.py", "split_inference.py", "xr_headset.py"} <= {
        p.name for p in EXAMPLES.glob("*.py")
    }
