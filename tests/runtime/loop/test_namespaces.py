"""A run across two network namespaces, with delay and loss between them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from splitinfer.simulation import Scenario

# Runs in a new user and network namespace: the edge here, the devices behind a cable in a second one.
SCRIPT = """
set -e
ip link set lo up
unshare -n sleep 600 & there=$!
trap 'kill $there' EXIT
while [ "$(readlink /proc/$there/ns/net)" = "$(readlink /proc/$$/ns/net)" ]; do sleep 0.05; done
ip link add cable type veth peer name far netns $there
ip addr add 10.77.0.1/24 dev cable
ip link set cable up
nsenter -t $there -n sh -c 'ip addr add 10.77.0.2/24 dev far; ip link set far up'
{netem}
nsenter -t $there -n {device} --index 0 & first=$!
nsenter -t $there -n {device} --index 1 & second=$!
{edge}
wait $first
wait $second
"""
NETEM = "tc qdisc add dev cable root netem delay 4ms 1ms loss 1%"


def why_not() -> str | None:
    """Return why this machine cannot do it, or None."""
    for tool in ("unshare", "nsenter", "ip", "tc"):
        if shutil.which(tool) is None:
            return f"there is no {tool}"
    for command, reason in (
        ("true", "network namespaces may not be made here"),
        ("ip link add cable type dummy && " + NETEM, "this kernel has no netem"),
    ):
        if subprocess.run(["unshare", "-rn", "sh", "-c", command], capture_output=True, check=False).returncode:
            return reason
    return None


def test_delay_and_loss_change_no_answer(tiny: Scenario, tiny_cards: dict[str, str], tmp_path: Path) -> None:
    if reason := why_not():
        pytest.skip(reason)
    said = run_in_namespaces(tiny, tiny_cards, tmp_path, netem=NETEM)
    assert "equal the whole model's, bit for bit" in said


def run_in_namespaces(scenario: Scenario, cards: dict[str, str], folder: Path, *, netem: str) -> str:
    scenario.save(folder / "tiny.toml")
    program = f"{sys.executable} -m splitinfer.cli.main"
    common = " ".join(["--scenario", str(folder / "tiny.toml"), *(f"--card {file}" for file in cards.values())])
    script = SCRIPT.format(
        netem=netem,
        device=f"{program} device --server 10.77.0.1:50099 {common}",
        edge=f"{program} serve --host 10.77.0.1 --port 50099 --insecure --policy random --duration 3 {common}",
    )
    done = subprocess.run(
        ["unshare", "-rn", "bash", "-c", script],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
