"""The targets of the fuzzing campaign, for a moment each; ``make fuzz`` goes on for longer."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.faults.fuzz import TARGETS, check, seeds
from benchmarks.faults.mutations import mutated


@pytest.mark.parametrize("name", list(TARGETS))
def test_mutated_bytes_are_read_or_refused(name: str) -> None:
    draw, corpus = random.Random(0), seeds(name)
    for _ in range(40 if name == "text_files" else 1500):
        check(TARGETS[name], mutated(draw, draw.choice(corpus)))


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "text_files"])
@given(data=st.binary(max_size=2000))
def test_any_bytes_are_read_or_refused(name: str, data: bytes) -> None:
    check(TARGETS[name], data)
