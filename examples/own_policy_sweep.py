"""A policy of your own in a sweep, with its row in the figure's table beside the others.

``Patient`` sends when the channel is better than it usually is and computes locally otherwise. The sweep is a file of
your own: how the policies do over the arrival rate.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


class Patient:
    """The input goes to the edge while the channel is better than its running mean; else all stays local."""

    name = "patient"

    def __init__(self, memory: float = 0.05) -> None:
        self.memory = memory

    def reset(self, setting, rng) -> None:  # type: ignore[no-untyped-def]
        """Begin a run."""
        self.setting = setting
        self.usual = None

    def cuts(self, observation):  # type: ignore[no-untyped-def]
        """Return the cut of every service, shape (M, N)."""
        rate = observation.max_rate_bps
        if not rate.any():
            return self.setting.num_cuts
        self.usual = rate.copy() if self.usual is None else self.usual + self.memory * (rate - self.usual)
        return np.where((rate > self.usual)[:, None], 0, self.setting.num_cuts)


SWEEP = """
title = "arrival rate"
scenario = "table2"
field = "arrival_rate_hz"
axis = "requests/s of each service"
values = [0.1, 0.4]
quick_values = [0.1, 0.4]
policies = ["fixed", "random", "myopic", "own_policy_sweep:Patient(memory=0.1)"]
panels = ["energy"]

[quick]
evaluation_slots = 3000
evaluation_seeds = [0, 1]

[changes]
local_energy_weight = 1e18
transmission_energy_weight = 1e13
"""


def main() -> None:
    """Run ``splitinfer reproduce`` on the sweep; the table has a row for ``Patient``."""
    here = Path(__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        sweep = Path(folder) / "rates.toml"
        sweep.write_text(SWEEP, encoding="utf-8")
        command = [sys.executable, "-m", "splitinfer", "reproduce", str(sweep), "--quick", "--jobs", "1"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), os.environ.get("PYTHONPATH", "")])}
        done = subprocess.run(
            [*command, "--out", folder], cwd=here, env=environment, capture_output=True, text=True, check=False
        )
        print(done.stdout, done.stderr)
        assert "Patient" in done.stdout
        print("wrote", ", ".join(sorted(path.name for path in Path(folder).glob("rates*"))))


if __name__ == "__main__":
    main()
