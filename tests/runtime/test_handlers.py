"""The handlers of a running edge and of a live run, under absurd messages; ``make fuzz`` goes on for longer."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.faults.handlers import MOST_GROWTH_KIB, AttackedRun, Victim
from splitinfer.graph import SplitModel
from splitinfer.runtime import EdgeProcess


def test_absurd_messages_do_not_disturb_an_edge(edge: EdgeProcess, models: dict[str, SplitModel]) -> None:
    with Victim(edge, models["plain"], torch.ones(1, 3, 32, 32)) as victim:

        @settings(derandomize=True, deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
        @given(draw=st.randoms(use_true_random=False))
        def throw(draw: random.Random) -> None:
            for _ in range(2):
                victim.throw(draw)

        throw()
        victim.check_well()
        assert victim.growth_kib < MOST_GROWTH_KIB


def test_strangers_in_a_live_run_do_not_disturb_who_keeps_his_word(tmp_path: Path) -> None:
    run = AttackedRun(tmp_path, slots=1000)
    run.run(random.Random(1))
    assert run.attacks > 10
    assert run.right == run.asked == 70
    assert sum("lost" in line for line in run.record.lost) > 5
